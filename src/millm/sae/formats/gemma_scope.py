"""Gemma Scope 2: `params.safetensors` and a `config.json` that names transformers' modules.

transformers' names are trusted over TransformerLens': what SAELens calls `hook_mlp_in` for the transcoders is
before the norm, while they were trained behind it. Without a `config.json` the path says it, as in SAELens.

Gemma Scope (arxiv.org/abs/2408.05147): a `params.npz` without a configuration; the path says the rest.
"""

import re
from pathlib import Path
from typing import Literal

import msgspec
from torch import Tensor

from millm.errors import InvalidSae
from millm.sae.config import Architecture, SaeConfig
from millm.sae.formats.reader import (
    SourceSae,
    convert_to_struct,
    drop_unit_scaling,
    dtype_name,
    matrix_shape,
    read_json_object,
    read_npz,
    read_safetensors,
    sha256_of,
)
from millm.sae.headers import parse_gemma_scope_path

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


GEMMA_SCOPE_2_WEIGHTS = "params.safetensors"
GEMMA_SCOPE_2_CONFIG = "config.json"
_TENSOR_NAMES = {"w_enc": "W_enc", "w_dec": "W_dec", "affine_skip_connection": "W_skip"}
_LAYER_MODULE = re.compile(r"\blayers\.(\d+)\.(.+)$")
_HOOK_BY_MODULE = {
    "output": "hook_resid_post",
    "self_attn.o_proj.input": "attn.hook_z",
    "post_feedforward_layernorm.output": "hook_mlp_out",
}
_SITE_IN_PATH = re.compile(r"/(?P<site>resid_post|attn_out|mlp_out|transcoder)(?:_all)?/layer_(?P<layer>\d+)_")
_MODULES_BY_SITE = {
    "resid_post": ("output", None),
    "attn_out": ("self_attn.o_proj.input", None),
    "mlp_out": ("post_feedforward_layernorm.output", None),
    "transcoder": ("pre_feedforward_layernorm.output", "post_feedforward_layernorm.output"),
}


class _GemmaScope2Config(msgspec.Struct, frozen=True):
    """Its `config.json`; other fields describe the training."""

    architecture: Literal["jump_relu"] = "jump_relu"
    model_name: str | None = None
    hf_hook_point_in: str | None = None
    hf_hook_point_out: str | None = None
    affine_connection: bool | None = None


def read_gemma_scope_2(folder: Path) -> SourceSae:
    """Raises InvalidSae when the folder is not a whole JumpReLU SAE or transcoder."""
    said = (
        convert_to_struct(read_json_object(folder / GEMMA_SCOPE_2_CONFIG), _GemmaScope2Config, GEMMA_SCOPE_2_CONFIG)
        if (folder / GEMMA_SCOPE_2_CONFIG).exists()
        else _config_from_path(folder)
    )
    found = read_safetensors(folder / GEMMA_SCOPE_2_WEIGHTS)
    tensors = {_TENSOR_NAMES.get(name, name): tensor for name, tensor in found.items()}
    d_in, d_sae = matrix_shape(tensors, "W_enc")
    _, d_out = matrix_shape(tensors, "W_dec")
    config = SaeConfig(
        architecture=_gemma_scope_2_architecture(said, tensors),
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
    return SourceSae(config, tensors, sha256_of(folder / GEMMA_SCOPE_2_WEIGHTS))


def _gemma_scope_2_architecture(file_config: _GemmaScope2Config, tensors: dict[str, Tensor]) -> Architecture:
    has_skip = "W_skip" in tensors
    if file_config.affine_connection is not None and file_config.affine_connection != has_skip:
        raise InvalidSae(
            f"affine_connection is {file_config.affine_connection}, but affine_skip_connection says otherwise"
        )
    if has_skip:
        return "jumprelu_skip_transcoder"
    return "jumprelu" if file_config.hf_hook_point_out is None else "jumprelu_transcoder"


def _config_from_path(folder: Path) -> _GemmaScope2Config:
    found = _SITE_IN_PATH.search(folder.absolute().as_posix())
    if found is None:
        raise InvalidSae(
            f"{GEMMA_SCOPE_2_CONFIG} is missing from the SAE's folder, and its path does not say where the SAE reads"
        )
    before, after = (side and f"model.layers.{found['layer']}.{side}" for side in _MODULES_BY_SITE[found["site"]])
    return _GemmaScope2Config(hf_hook_point_in=before, hf_hook_point_out=after)


def _model_id(name: str | None) -> str | None:
    """`gemma-v3-4b-pt` and the like, as Hugging Face has it; the 270m models have no `-pt`."""
    if name is None:
        return None
    name = name.replace("-v3", "-3")
    name = name.replace("-pt", "") if "270m" in name else name
    return name if name.startswith("google/") else f"google/{name}"


def _hook_name(module: str | None) -> str | None:
    """TransformerLens' name for one of transformers', where it has one."""
    found = _LAYER_MODULE.search(module or "")
    return f"blocks.{found[1]}.{_HOOK_BY_MODULE[found[2]]}" if found and found[2] in _HOOK_BY_MODULE else None
