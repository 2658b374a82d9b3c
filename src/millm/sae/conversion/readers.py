"""Read SAEs of other libraries: rename and transpose their tensors, map their settings to SAELens'.

Pickles (dictionary_learning, Qwen Scope, Goodfire, DeepSeek R1, Connor & Rob's attention SAEs) are opened as plain
tensors, without running their code; safetensors are Llama Scope, EleutherAI's sparsify and Qwen3 transcoders. Tests
compare each with SAELens' loader.
"""

import math
import os
import pickle
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from millm.errors import InvalidSae
from millm.sae.conversion.protocol import ConversionRequest
from millm.sae.formats.reader import read_json_object, read_safetensors

UNSAFE_LOAD_VARIABLE = "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"
"""When set, torch.load runs the code in a pickle, even with `weights_only=True`."""
Tensors = Mapping[str, Tensor]


@dataclass(frozen=True)
class ConvertedSae:
    """The content of `cfg.json` and `sae_weights.safetensors`, with tensors in SAELens' names and orientation."""

    architecture: str
    tensors: Tensors
    apply_b_dec_to_input: bool
    k: int | None = None
    input_scale: float | None = None
    model_name: str | None = None
    hooks: Mapping[str, str] = field(default_factory=dict)
    """`hook_name`, `hf_hook_name`, `hook_name_out`."""


_LINEAR_TENSOR_NAMES = {
    "W_enc": "encoder.weight.T",
    "b_enc": "encoder.bias",
    "W_dec": "decoder.weight.T",
    "b_dec": "decoder.bias",
}
_REQUIRED_SPARSIFY_SETTINGS = {"signed": False, "skip_connection": False, "transcode": False, "activation": "topk"}
"""sparsify's settings with the only supported value of each."""
ConversionReader = Callable[[ConversionRequest], ConvertedSae]


def source_file(request: ConversionRequest, suffix: str = "") -> Path:
    """Path of the first file with this suffix; without one, of the weights."""
    return Path(request.source) / next(file for file in request.files if file.endswith(suffix))


def rename_tensors(tensors: Tensors, **names: str) -> dict[str, Tensor]:
    """`W_enc="encoder.weight.T"`: our name, their name, and `.T` to transpose. Raises InvalidSae."""
    return {ours: _get_tensor(tensors, theirs) for ours, theirs in names.items()}


def _get_tensor(tensors: Tensors, name: str) -> Tensor:
    plain = name.removesuffix(".T")
    if plain not in tensors:
        raise InvalidSae(f"tensor {plain} is missing; the file has {', '.join(sorted(tensors))}")
    tensor = tensors[plain]
    if plain != name and tensor.ndim != 2:
        raise InvalidSae(f"tensor {plain} must be a matrix; its shape is {list(tensor.shape)}")
    return tensor.T if plain != name else tensor


def require_match(pattern: str, text: str, error_message: str) -> re.Match[str]:
    """The match. Raises InvalidSae with `error_message` without one."""
    if (match := re.search(pattern, text)) is None:
        raise InvalidSae(error_message)
    return match


def positive_number(raw: Mapping[str, Any], *keys: str, file: str) -> float:
    """The positive number under nested keys. Raises InvalidSae naming them."""
    value = _nested_value(raw, keys)
    if not isinstance(value, int | float) or isinstance(value, bool) or value <= 0:
        raise InvalidSae(f"{file}: {'.'.join(keys)} must be a positive number")
    return value


def require_string(raw: Mapping[str, Any], *keys: str, file: str) -> str:
    """The string under nested keys. Raises InvalidSae naming them."""
    value = _nested_value(raw, keys)
    if not isinstance(value, str):
        raise InvalidSae(f"{file}: {'.'.join(keys)} must be a string")
    return value


def _nested_value(raw: Mapping[str, Any], keys: tuple[str, ...]) -> Any:
    value: Any = raw
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value


_DICTIONARY_TENSOR_NAMES = {
    "W_enc": ("W_enc", "encoder.weight.T"),
    "W_dec": ("W_dec", "decoder.weight.T"),
    "b_dec": ("b_dec", "bias", "decoder_bias"),
    "b_enc": ("b_enc", "encoder.bias"),
    "b_gate": ("gate_bias",),
    "b_mag": ("mag_bias",),
    "r_mag": ("r_mag",),
}
"""dictionary_learning: our name, and the names in its classes."""
_DICTIONARY_CLASSES = {
    "AutoEncoder": ("standard", True, ("b_enc",)),
    "AutoEncoderTopK": ("topk", True, ("b_enc",)),
    "GatedAutoEncoder": ("gated", True, ("b_gate", "b_mag", "r_mag")),
    "BatchTopKSAE": ("jumprelu", True, ("b_enc",)),
    "MatryoshkaBatchTopKSAE": ("jumprelu", True, ("b_enc",)),
    "JumpReluAutoEncoder": ("jumprelu", False, ("b_enc",)),
}
"""dictionary_learning's class → architecture, `apply_b_dec_to_input`, biases of the encoder."""


def load_state_dict(file: Path) -> dict[str, Tensor]:
    """The tensors in a pickle. Raises InvalidSae when it holds anything but plain values."""
    if UNSAFE_LOAD_VARIABLE in os.environ:
        raise InvalidSae(f"{UNSAFE_LOAD_VARIABLE} is set, which lets a pickle run code; unset it")
    try:
        loaded = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise InvalidSae(f"{file.name} is a pickle that holds more than tensors and was not read") from error
    except (OSError, EOFError, RuntimeError, ValueError, KeyError) as error:
        raise InvalidSae(f"{file.name} is not a complete torch file; download it again") from error
    if not isinstance(loaded, dict):
        raise InvalidSae(f"{file.name} holds no tensors by name")
    return {name: value for name, value in loaded.items() if isinstance(value, Tensor)}


def read_dictionary_learning(request: ConversionRequest) -> ConvertedSae:
    """github.com/saprmarks/dictionary_learning: the class in its configuration defines the arithmetic."""
    raw = read_json_object(source_file(request, "config.json"))
    kind = require_string(raw, "trainer", "dict_class", file="config.json")
    if kind not in _DICTIONARY_CLASSES:
        raise InvalidSae(
            f"config.json: dict_class {kind!r} is not supported; supported are {', '.join(_DICTIONARY_CLASSES)}"
        )
    architecture, subtracts_b_dec, biases = _DICTIONARY_CLASSES[kind]
    stored = load_state_dict(source_file(request))
    names = {}
    for ours in ("W_enc", "W_dec", "b_dec", *biases):
        theirs = _DICTIONARY_TENSOR_NAMES[ours]
        names[ours] = next((name for name in theirs if name.removesuffix(".T") in stored), theirs[0])
    tensors = rename_tensors(stored, **names)
    if architecture == "jumprelu":  # AutoEncoderTopK has an unused threshold as well
        tensors["threshold"] = rename_tensors(stored, threshold="threshold")["threshold"]
    return ConvertedSae(
        architecture=architecture,
        tensors=tensors,
        apply_b_dec_to_input=subtracts_b_dec,
        k=int(positive_number(raw, "trainer", "k", file="config.json")) if architecture == "topk" else None,
        model_name=request.model or require_string(raw, "trainer", "lm_name", file="config.json"),
        hooks=_residual_hook(_trainer_layer(raw["trainer"])),
    )


def _trainer_layer(trainer: dict[str, Any]) -> int:
    module = trainer.get("submodule_name") or "resid_post"
    if not isinstance(module, str) or not module.startswith("resid_post"):
        raise InvalidSae(f"config.json: submodule {module!r} is not supported; it must be resid_post")
    layer = trainer.get("layer")
    if not isinstance(layer, int) or layer < 0:
        raise InvalidSae("config.json: trainer.layer must be a layer's number")
    return layer


def read_qwen_scope(request: ConversionRequest) -> ConvertedSae:
    """k is only in the repository's name."""
    layer = require_match(r"layer(\d+)\.sae\.pt$", request.files[0], "the file's name lacks its layer")[1]
    missing_k = "the repository's name lacks k; it must end like SAE-Res-…-W32K-L0_50"
    k = require_match(r"-W\d+K-L0_(\d+)", f"{request.name} {request.source}", missing_k)[1]
    stored = load_state_dict(source_file(request))
    return ConvertedSae(
        architecture="topk",
        tensors=rename_tensors(stored, W_enc="W_enc.T", W_dec="W_dec.T", b_enc="b_enc", b_dec="b_dec"),
        apply_b_dec_to_input=False,
        k=int(k),
        model_name=request.model,
        hooks=_residual_hook(int(layer)) | {"hf_hook_name": f"model.layers.{layer}.output"},
    )


def read_torch_linear(request: ConversionRequest) -> ConvertedSae:
    """Two linear layers with a ReLU between: Goodfire's, and the one of DeepSeek R1."""
    layer = require_match(r"-l(\d+)\.pth?$", request.files[0], "the file's name lacks its layer (…-l19.pt)")[1]
    stored = load_state_dict(source_file(request))
    suffix = "_linear" if "encoder_linear.weight" in stored else ""
    names = {ours: theirs.replace(".", f"{suffix}.", 1) for ours, theirs in _LINEAR_TENSOR_NAMES.items()}
    return ConvertedSae(
        architecture="standard",
        tensors=rename_tensors(stored, **names),
        apply_b_dec_to_input=False,
        model_name=request.model,
        hooks=_residual_hook(int(layer)),
    )


def read_connor_rob(request: ConversionRequest) -> ConvertedSae:
    """One SAE over all heads of an attention layer."""
    hook = require_string(read_json_object(source_file(request, "_cfg.json")), "act_name", file="_cfg.json")
    stored = load_state_dict(source_file(request))
    return ConvertedSae(
        architecture="standard",
        tensors=rename_tensors(stored, W_enc="W_enc", b_enc="b_enc", W_dec="W_dec", b_dec="b_dec"),
        apply_b_dec_to_input=True,
        model_name=request.model,
        hooks={"hook_name": hook},
    )


def _residual_hook(layer: int) -> dict[str, str]:
    return {"hook_name": f"blocks.{layer}.hook_resid_post"}


def read_llama_scope(request: ConversionRequest) -> ConvertedSae:
    """One threshold for all features, scaled with the input as in SAELens and on Neuronpedia."""
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
    """The input scale of the catalogue has priority; some files do not contain one."""
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
    """For training on activations scaled to a mean norm of √d."""
    return math.sqrt(positive_number(raw, "d_model", file=file)) / positive_number(
        raw, "dataset_average_activation_norm", "in", file=file
    )


def _input_hook(raw: dict[str, Any], file: str) -> str:
    hook = require_string(raw, "hook_point_in", file=file)
    if raw.get("hook_point_out", hook) != hook:
        raise InvalidSae(f"{file}: hook_point_out differs from {hook}; such transcoders are not supported")
    return hook


def read_sparsify(request: ConversionRequest) -> ConvertedSae:
    """Always topk with b_dec subtracted first; W_dec has a row per feature (sparsify's `SparseCoder`).

    SAELens 6.54 misreads both.
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
    """From the folder's name, transformers' module whose output the SAE reads; {} for other names."""
    module = re.search(r"(?:^|[/.])((?:layers|h)\.(\d+)(?:\.\w+)*)$", name)
    if module is None:
        return {"hook_name": "hook_embed"} if name.endswith("embed_tokens") else {}
    is_layer = module[1].count(".") == 1
    return (_residual_hook(int(module[2])) if is_layer else {}) | {"hf_hook_name": f"{module[1]}.output"}


def read_mwhanna(request: ConversionRequest) -> ConvertedSae:
    """Transcoders from the input of the MLP to its output; they can be watched only."""
    layer = require_match(r"layer_(\d+)\.safetensors$", request.files[0], "the file's name lacks its layer")[1]
    return ConvertedSae(
        architecture="transcoder",
        tensors=rename_tensors(
            read_safetensors(source_file(request)), W_enc="W_enc.T", b_enc="b_enc", W_dec="W_dec", b_dec="b_dec"
        ),
        apply_b_dec_to_input=False,
        model_name=request.model,
        hooks={"hook_name": f"blocks.{layer}.mlp.hook_in", "hook_name_out": f"blocks.{layer}.hook_mlp_out"},
    )
