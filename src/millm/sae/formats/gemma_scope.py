"""Gemma Scope (arxiv.org/abs/2408.05147): a `params.npz` without a configuration; the path says the rest.

What a path like `gemma-scope-2b-pt-res/layer_12/width_16k/average_l0_82` does not say is left unknown.
"""

import re
from dataclasses import dataclass
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

WEIGHTS = "params.npz"

_FOLDED = ("embedding scale",)
_REPOSITORY = re.compile(r"gemma-scope-(?P<size>\d+b)-(?P<tuning>pt|it)-(?P<site>res|mlp|att|transcoders)\b")
_LAYER = re.compile(r"/layer_(\d+)(?:/|$)")
_HOOKS = {
    "res": "hook_resid_post",
    "mlp": "hook_mlp_out",
    "att": "attn.hook_z",
    "transcoders": "ln2.hook_normalized",
}


@dataclass(frozen=True)
class _Place:
    """What the path says."""

    model_name: str | None = None
    hook_name: str | None = None
    hook_name_out: str | None = None
    is_transcoder: bool = False
    is_embedding: bool = False


def read(folder: Path) -> SourceSae:
    """Raises InvalidSae when params.npz is not a whole JumpReLU SAE."""
    place = _place(folder.absolute().as_posix())
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


def _place(path: str) -> _Place:
    repository, layer = _REPOSITORY.search(path), _LAYER.search(path)
    if repository is None:
        return _Place()
    site = repository["site"]
    model_name = f"google/gemma-2-{repository['size']}" + ("-it" if repository["tuning"] == "it" else "")
    if site == "res" and "/embedding" in path:
        return _Place(model_name, "hook_embed", is_embedding=True)
    return _Place(
        model_name=model_name,
        hook_name=f"blocks.{layer[1]}.{_HOOKS[site]}" if layer else None,
        hook_name_out=f"blocks.{layer[1]}.hook_mlp_out" if layer and site == "transcoders" else None,
        is_transcoder=site == "transcoders",
    )


def _upper(name: str) -> str:
    return "W_" + name[2:] if name.startswith("w_") else name


def _on_scaled_embeddings(tensors: dict[str, Tensor], d_in: int) -> dict[str, Tensor]:
    """Those were trained on embeddings before Gemma multiplies them by √d; SAELens corrects them alike."""
    return tensors | {"W_enc": tensors["W_enc"] / d_in**0.5, "W_dec": tensors["W_dec"] * d_in**0.5}
