"""Read Gemma Scope and Gemma Scope 2.

Gemma Scope (arxiv.org/abs/2408.05147) is a `params.npz` without a configuration; the path contains the hook.
Gemma Scope 2 is a `params.safetensors` with a `config.json` that names transformers' modules; without it the path is
parsed, as in SAELens. transformers' names have priority: SAELens calls the transcoders' hook `hook_mlp_in`, which is
before the norm, while they were trained on its output.
"""

import re
from pathlib import Path
from typing import Literal

import msgspec
from torch import Tensor

from millm.errors import InvalidSae
from millm.sae.config import Architecture, SaeConfig
from millm.sae.formats import reader
from millm.sae.formats.reader import SourceSae
from millm.sae.headers import parse_gemma_scope_path

GEMMA_SCOPE_WEIGHTS = "params.npz"
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


def read_gemma_scope(folder: Path) -> SourceSae:
    """Raises InvalidSae when params.npz is not a complete JumpReLU SAE."""
    location = parse_gemma_scope_path(folder.absolute().as_posix())
    arrays = reader.drop_unit_scaling(reader.read_npz(folder / GEMMA_SCOPE_WEIGHTS))
    tensors = {_TENSOR_NAMES.get(name, name): tensor for name, tensor in arrays.items()}
    d_in, d_sae = reader.matrix_shape(tensors, "W_enc")
    _, d_out = reader.matrix_shape(tensors, "W_dec")
    config = SaeConfig(
        architecture="jumprelu_transcoder" if location.is_transcoder else "jumprelu",
        d_in=d_in,
        d_sae=d_sae,
        d_out=d_out,
        model_name=location.model_name,
        hook_name=location.hook_name,
        hook_name_out=location.hook_name_out,
        source_format="gemma_scope",
        dtype=reader.dtype_name(tensors["W_enc"]),
    )
    if location.is_embedding:  # trained on embeddings before Gemma's factor of √d; SAELens corrects this as well
        tensors |= {"W_enc": tensors["W_enc"] / d_in**0.5, "W_dec": tensors["W_dec"] * d_in**0.5}
    tensors["W_enc_T"] = tensors.pop("W_enc").T
    folded = ("embedding scale",) if location.is_embedding else ()
    return SourceSae(config, tensors, reader.sha256_of(folder / GEMMA_SCOPE_WEIGHTS), folded)


class _GemmaScope2Config(msgspec.Struct, frozen=True):
    """`config.json`; other fields describe the training."""

    architecture: Literal["jump_relu"] = "jump_relu"
    model_name: str | None = None
    hf_hook_point_in: str | None = None
    hf_hook_point_out: str | None = None
    affine_connection: bool | None = None


def read_gemma_scope_2(folder: Path) -> SourceSae:
    """Raises InvalidSae when the folder is not a complete JumpReLU SAE or transcoder."""
    if (folder / GEMMA_SCOPE_2_CONFIG).exists():
        raw = reader.read_json_object(folder / GEMMA_SCOPE_2_CONFIG)
        file_config = reader.convert_to_struct(raw, _GemmaScope2Config, GEMMA_SCOPE_2_CONFIG)
    else:
        file_config = _config_from_path(folder)
    stored = reader.read_safetensors(folder / GEMMA_SCOPE_2_WEIGHTS)
    tensors = {_TENSOR_NAMES.get(name, name): tensor for name, tensor in stored.items()}
    d_in, d_sae = reader.matrix_shape(tensors, "W_enc")
    _, d_out = reader.matrix_shape(tensors, "W_dec")
    config = SaeConfig(
        architecture=_gemma_scope_2_architecture(file_config, tensors),
        d_in=d_in,
        d_sae=d_sae,
        d_out=d_out,
        model_name=_model_id(file_config.model_name),
        hook_name=_hook_name(file_config.hf_hook_point_in),
        hf_hook_name=file_config.hf_hook_point_in,
        hook_name_out=_hook_name(file_config.hf_hook_point_out),
        source_format="gemma_scope_2",
        dtype=reader.dtype_name(tensors["W_enc"]),
    )
    tensors["W_enc_T"] = tensors.pop("W_enc").T
    if "W_skip" in tensors:
        reader.matrix_shape(tensors, "W_skip")
        tensors["W_skip"] = tensors["W_skip"].T  # stored [d_in, d_out]
    return SourceSae(config, tensors, reader.sha256_of(folder / GEMMA_SCOPE_2_WEIGHTS))


def _gemma_scope_2_architecture(file_config: _GemmaScope2Config, tensors: dict[str, Tensor]) -> Architecture:
    has_skip = "W_skip" in tensors
    if file_config.affine_connection is not None and file_config.affine_connection != has_skip:
        raise InvalidSae(
            f"affine_connection is {file_config.affine_connection}, which contradicts tensor affine_skip_connection"
        )
    if has_skip:
        return "jumprelu_skip_transcoder"
    return "jumprelu" if file_config.hf_hook_point_out is None else "jumprelu_transcoder"


def _config_from_path(folder: Path) -> _GemmaScope2Config:
    match = _SITE_IN_PATH.search(folder.absolute().as_posix())
    if match is None:
        raise InvalidSae(
            f"{GEMMA_SCOPE_2_CONFIG} is missing from the SAE's folder, and its path does not contain the hook point"
        )
    before, after = (side and f"model.layers.{match['layer']}.{side}" for side in _MODULES_BY_SITE[match["site"]])
    return _GemmaScope2Config(hf_hook_point_in=before, hf_hook_point_out=after)


def _model_id(name: str | None) -> str | None:
    """The Hugging Face id for `gemma-v3-4b-pt` and the like; the 270m models have no `-pt`."""
    if name is None:
        return None
    name = name.replace("-v3", "-3")
    name = name.replace("-pt", "") if "270m" in name else name
    return name if name.startswith("google/") else f"google/{name}"


def _hook_name(module: str | None) -> str | None:
    """TransformerLens' name for one of transformers', if it has one."""
    match = _LAYER_MODULE.search(module or "")
    return f"blocks.{match[1]}.{_HOOK_BY_MODULE[match[2]]}" if match and match[2] in _HOOK_BY_MODULE else None
