"""SAEs of other libraries whose weights are safetensors: Llama Scope, EleutherAI's sparsify, Qwen3 transcoders.

Each is a renaming and a transposition, held against SAELens' loader where that is right (`tests/sae/test_convert.py`).
"""

import math
import re
from typing import Any

import torch

from millm.errors import InvalidSae
from millm.sae.foreign.order import ConversionRequest
from millm.sae.foreign.source import (
    ConvertedSae,
    positive_number,
    rename_tensors,
    require_match,
    require_string,
    source_file,
)
from millm.sae.formats.source import read_json_object, read_safetensors

_LINEAR_TENSOR_NAMES = {
    "W_enc": "encoder.weight.T",
    "b_enc": "encoder.bias",
    "W_dec": "decoder.weight.T",
    "b_dec": "decoder.bias",
}
_REQUIRED_SPARSIFY_SETTINGS = {"signed": False, "skip_connection": False, "transcode": False, "activation": "topk"}
"""sparsify's settings, and the one value of each whose arithmetic we do."""


def read_llama_scope(request: ConversionRequest) -> ConvertedSae:
    """One threshold for all features, moved with the input's scale as SAELens moves it: what Neuronpedia shows too."""
    raw = read_json_object(source_file(request, ".json"))
    name = source_file(request, ".json").name
    tensors = rename_tensors(read_safetensors(source_file(request)), **_LINEAR_TENSOR_NAMES)
    scale = _input_scale(raw, name)
    threshold = positive_number(raw, "jump_relu_threshold", file=name) * scale
    return ConvertedSae(
        architecture="jumprelu",
        tensors=tensors | {"threshold": torch.full(tensors["b_enc"].shape, threshold)},
        apply_b_dec_to_input=False,
        input_scale=scale,
        model_name=request.model or "meta-llama/Llama-3.1-8B",
        hooks={"hook_name": _input_hook(raw, name)},
    )


def read_llama_scope_r1_distill(request: ConversionRequest) -> ConvertedSae:
    """The files may not say the input's scale; then the catalogue does."""
    raw = read_json_object(source_file(request, ".json"))
    name = source_file(request, ".json").name
    stored = read_safetensors(source_file(request))
    threshold = rename_tensors(stored, threshold="log_jumprelu_threshold")["threshold"].float().exp()
    return ConvertedSae(
        architecture="jumprelu",
        tensors=rename_tensors(stored, **_LINEAR_TENSOR_NAMES) | {"threshold": threshold},
        apply_b_dec_to_input=False,
        input_scale=request.input_scale or _input_scale(raw, name),
        model_name=request.model,
        hooks={"hook_name": _input_hook(raw, name)},
    )


def _input_scale(raw: dict[str, Any], file: str) -> float:
    """Trained on activations whose mean norm was made √d."""
    return math.sqrt(positive_number(raw, "d_model", file=file)) / positive_number(
        raw, "dataset_average_activation_norm", "in", file=file
    )


def _input_hook(raw: dict[str, Any], file: str) -> str:
    hook = require_string(raw, "hook_point_in", file=file)
    if raw.get("hook_point_out", hook) != hook:
        raise InvalidSae(f"{file}: it reads {hook} and writes elsewhere; such transcoders are not supported")
    return hook


def read_sparsify(request: ConversionRequest) -> ConvertedSae:
    """Keeps the k largest and subtracts b_dec before, always; W_dec lies feature by feature (sparsify's `SparseCoder`).

    SAELens 6.54 reads it wrong on both counts.
    """
    raw = read_json_object(source_file(request, "cfg.json"))
    for key, value in _REQUIRED_SPARSIFY_SETTINGS.items():
        if raw.get(key, value) != value:
            raise InvalidSae(f"cfg.json: {key} {raw[key]!r} is not supported; it must be {value!r}")
    names = {"W_enc": "encoder.weight.T", "b_enc": "encoder.bias", "W_dec": "W_dec", "b_dec": "b_dec"}
    return ConvertedSae(
        architecture="topk",
        tensors=rename_tensors(read_safetensors(source_file(request)), **names),
        apply_b_dec_to_input=True,
        k=int(positive_number(raw, "k", file="cfg.json")),
        model_name=request.model,
        hooks=_sparsify_hooks(request.name.partition("@")[0]),
    )


def _sparsify_hooks(name: str) -> dict[str, str]:
    """The folder is named after transformers' module, whose output it reads; unknown where it is not."""
    module = re.search(r"(?:^|[/.])((?:layers|h)\.(\d+)(?:\.\w+)*)$", name)
    if module is None:
        return {"hook_name": "hook_embed"} if name.endswith("embed_tokens") else {}
    whole_layer = module[1].count(".") == 1
    lens = {"hook_name": f"blocks.{module[2]}.hook_resid_post"} if whole_layer else {}
    return lens | {"hf_hook_name": f"{module[1]}.output"}


def read_mwhanna(request: ConversionRequest) -> ConvertedSae:
    """Transcoders from what goes into the MLP to what comes out: to watch."""
    layer = require_match(r"layer_(\d+)\.safetensors$", request.files[0], "the file's name does not say its layer")[1]
    return ConvertedSae(
        architecture="transcoder",
        tensors=rename_tensors(
            read_safetensors(source_file(request)), W_enc="W_enc.T", b_enc="b_enc", W_dec="W_dec", b_dec="b_dec"
        ),
        apply_b_dec_to_input=False,
        model_name=request.model,
        hooks={"hook_name": f"blocks.{layer}.mlp.hook_in", "hook_name_out": f"blocks.{layer}.hook_mlp_out"},
    )
