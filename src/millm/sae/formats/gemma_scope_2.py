"""Gemma Scope 2: `params.safetensors` and a `config.json` that names transformers' modules.

transformers' names are trusted over TransformerLens': what SAELens calls `hook_mlp_in` for the transcoders is
before the norm, while they were trained behind it. Without a `config.json` the path says it, as in SAELens.
"""

import re
from pathlib import Path
from typing import Literal

import msgspec
from torch import Tensor

from millm.errors import InvalidSae
from millm.sae.config import Architecture, SaeConfig
from millm.sae.formats.source import (
    SourceSae,
    dtype_name,
    json_object,
    matrix_shape,
    safetensors_file,
    sha256_of,
    typed,
)

WEIGHTS = "params.safetensors"
CONFIG = "config.json"

_OURS = {"w_enc": "W_enc", "w_dec": "W_dec", "affine_skip_connection": "W_skip"}
_LAYER = re.compile(r"\blayers\.(\d+)\.(.+)$")
_HOOKS = {
    "output": "hook_resid_post",
    "self_attn.o_proj.input": "attn.hook_z",
    "post_feedforward_layernorm.output": "hook_mlp_out",
}
_PATH = re.compile(r"/(?P<site>resid_post|attn_out|mlp_out|transcoder)(?:_all)?/layer_(?P<layer>\d+)_")
_SITES = {
    "resid_post": ("output", None),
    "attn_out": ("self_attn.o_proj.input", None),
    "mlp_out": ("post_feedforward_layernorm.output", None),
    "transcoder": ("pre_feedforward_layernorm.output", "post_feedforward_layernorm.output"),
}


class _Config(msgspec.Struct, frozen=True):
    """Its `config.json`; other fields describe the training."""

    architecture: Literal["jump_relu"] = "jump_relu"
    model_name: str | None = None
    hf_hook_point_in: str | None = None
    hf_hook_point_out: str | None = None
    affine_connection: bool | None = None


def read(folder: Path) -> SourceSae:
    """Raises InvalidSae when the folder is not a whole JumpReLU SAE or transcoder."""
    said = typed(json_object(folder / CONFIG), _Config, CONFIG) if (folder / CONFIG).exists() else _inferred(folder)
    found = safetensors_file(folder / WEIGHTS)
    tensors = {_OURS.get(name, name): tensor for name, tensor in found.items()}
    d_in, d_sae = matrix_shape(tensors, "W_enc")
    _, d_out = matrix_shape(tensors, "W_dec")
    config = SaeConfig(
        architecture=_architecture(said, tensors),
        d_in=d_in,
        d_sae=d_sae,
        d_out=d_out,
        model_name=_model_id(said.model_name),
        hook_name=_hook_name(said.hf_hook_point_in),
        hf_hook_name=said.hf_hook_point_in,
        hook_name_out=_hook_name(said.hf_hook_point_out),
        source_format="gemma_scope_2",
        dtype=dtype_name(tensors["W_enc"]),
    )
    tensors["W_enc_T"] = tensors.pop("W_enc").T
    if "W_skip" in tensors:
        matrix_shape(tensors, "W_skip")
        tensors["W_skip"] = tensors["W_skip"].T  # stored [d_in, d_out]
    return SourceSae(config, tensors, sha256_of(folder / WEIGHTS))


def _architecture(said: _Config, tensors: dict[str, Tensor]) -> Architecture:
    has_skip = "W_skip" in tensors
    if said.affine_connection is not None and said.affine_connection != has_skip:
        raise InvalidSae(f"affine_connection is {said.affine_connection}, but affine_skip_connection says otherwise")
    if has_skip:
        return "jumprelu_skip_transcoder"
    return "jumprelu" if said.hf_hook_point_out is None else "jumprelu_transcoder"


def _inferred(folder: Path) -> _Config:
    found = _PATH.search(folder.absolute().as_posix())
    if found is None:
        raise InvalidSae(f"{CONFIG} is missing from the SAE's folder, and its path does not say where the SAE reads")
    before, after = (side and f"model.layers.{found['layer']}.{side}" for side in _SITES[found["site"]])
    return _Config(hf_hook_point_in=before, hf_hook_point_out=after)


def _model_id(name: str | None) -> str | None:
    """`gemma-v3-4b-pt` and the like, as Hugging Face has it; the 270m models have no `-pt`."""
    if name is None:
        return None
    name = name.replace("-v3", "-3")
    name = name.replace("-pt", "") if "270m" in name else name
    return name if name.startswith("google/") else f"google/{name}"


def _hook_name(module: str | None) -> str | None:
    """TransformerLens' name for one of transformers', where it has one."""
    found = _LAYER.search(module or "")
    return f"blocks.{found[1]}.{_HOOKS[found[2]]}" if found and found[2] in _HOOKS else None
