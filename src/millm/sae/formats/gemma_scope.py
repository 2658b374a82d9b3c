"""Gemma Scope (arxiv.org/abs/2408.05147): a `params.npz` without a configuration; the path says the rest."""

from pathlib import Path

from torch import Tensor

from millm.sae.config import SaeConfig
from millm.sae.formats.source import (
    SourceSae,
    dtype_name,
    matrix_shape,
    npz_file,
    sha256_of,
    without_unit_scaling,
)
from millm.sae.gemma_scope_path import place_of

WEIGHTS = "params.npz"

_FOLDED = ("embedding scale",)


def read(folder: Path) -> SourceSae:
    """Raises InvalidSae when params.npz is not a whole JumpReLU SAE."""
    place = place_of(folder.absolute().as_posix())
    arrays = without_unit_scaling(npz_file(folder / WEIGHTS))
    tensors = {_upper(name): tensor for name, tensor in arrays.items()}
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
        tensors = _on_scaled_embeddings(tensors, d_in)
    tensors["W_enc_T"] = tensors.pop("W_enc").T
    return SourceSae(config, tensors, sha256_of(folder / WEIGHTS), _FOLDED if place.is_embedding else ())


def _upper(name: str) -> str:
    return "W_" + name[2:] if name.startswith("w_") else name


def _on_scaled_embeddings(tensors: dict[str, Tensor], d_in: int) -> dict[str, Tensor]:
    """Those were trained on embeddings before Gemma multiplies them by √d; SAELens corrects them alike."""
    return tensors | {"W_enc": tensors["W_enc"] / d_in**0.5, "W_dec": tensors["W_dec"] * d_in**0.5}
