"""Gemma Scope (arxiv.org/abs/2408.05147): a `params.npz` without a configuration; the path says the rest."""

from pathlib import Path

from torch import Tensor

from millm.sae.config import SaeConfig
from millm.sae.formats.source import SourceSae, drop_unit_scaling, dtype_name, matrix_shape, read_npz, sha256_of
from millm.sae.gemma_scope_path import parse_gemma_scope_path

GEMMA_SCOPE_WEIGHTS = "params.npz"

_EMBEDDING_FOLDED = ("embedding scale",)


def read_gemma_scope(folder: Path) -> SourceSae:
    """Raises InvalidSae when params.npz is not a whole JumpReLU SAE."""
    place = parse_gemma_scope_path(folder.absolute().as_posix())
    arrays = drop_unit_scaling(read_npz(folder / GEMMA_SCOPE_WEIGHTS))
    tensors = {_canonical_tensor_name(name): tensor for name, tensor in arrays.items()}
    d_in, d_sae = matrix_shape(tensors, "W_enc")
    _, d_out = matrix_shape(tensors, "W_dec")
    config = SaeConfig(
        architecture="jumprelu_transcoder" if place.is_transcoder else "jumprelu",
        d_in=d_in,
        d_sae=d_sae,
        d_out=d_out,
        model_name=place.model_name,
        hook_name=place.hook_name,
        hook_name_out=place.hook_name_out,
        source_format="gemma_scope",
        dtype=dtype_name(tensors["W_enc"]),
    )
    if place.is_embedding:
        tensors = _rescale_embedding_sae(tensors, d_in)
    tensors["W_enc_T"] = tensors.pop("W_enc").T
    return SourceSae(
        config, tensors, sha256_of(folder / GEMMA_SCOPE_WEIGHTS), _EMBEDDING_FOLDED if place.is_embedding else ()
    )


def _canonical_tensor_name(name: str) -> str:
    return "W_" + name[2:] if name.startswith("w_") else name


def _rescale_embedding_sae(tensors: dict[str, Tensor], d_in: int) -> dict[str, Tensor]:
    """Those were trained on embeddings before Gemma multiplies them by √d; SAELens corrects them alike."""
    return tensors | {"W_enc": tensors["W_enc"] / d_in**0.5, "W_dec": tensors["W_dec"] * d_in**0.5}
