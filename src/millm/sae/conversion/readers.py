"""SAEs of other libraries whose weights are pickles: opened as plain tensors, with nothing in them ever run.

dictionary_learning, Qwen Scope, Goodfire, DeepSeek R1, Connor & Rob's attention SAEs; each is held against SAELens'
loader (`tests/sae/test_convert.py`).

An SAE of another library, half way: its tensors in SAELens' names, and what its configuration comes to.

SAEs of other libraries whose weights are safetensors: Llama Scope, EleutherAI's sparsify, Qwen3 transcoders.

Each is a renaming and a transposition, held against SAELens' loader where that is right (`tests/sae/test_convert.py`).
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

Tensors = Mapping[str, Tensor]


@dataclass(frozen=True)
class ConvertedSae:
    """What is written as `cfg.json` and `sae_weights.safetensors`; widths are taken from the tensors."""

    architecture: str
    tensors: Tensors
    apply_b_dec_to_input: bool
    k: int | None = None
    input_scale: float | None = None
    model_name: str | None = None
    hooks: Mapping[str, str] = field(default_factory=dict)
    """`hook_name`, `hf_hook_name`, `hook_name_out`."""


ConversionReader = Callable[[ConversionRequest], ConvertedSae]


def source_file(request: ConversionRequest, suffix: str = "") -> Path:
    """Of the weights, or of the one file that ends so."""
    named = [file for file in request.files if file.endswith(suffix)]
    return Path(request.source) / named[0]


def rename_tensors(tensors: Tensors, **names: str) -> dict[str, Tensor]:
    """`W_enc="encoder.weight.T"`: our name, theirs, and whether it lies the other way. Raises InvalidSae."""
    return {ours: _get_tensor(tensors, theirs) for ours, theirs in names.items()}


def _get_tensor(tensors: Tensors, name: str) -> Tensor:
    plain = name.removesuffix(".T")
    if plain not in tensors:
        raise InvalidSae(f"tensor {plain} is missing; there are {', '.join(sorted(tensors))}")
    tensor = tensors[plain]
    if plain != name and tensor.ndim != 2:
        raise InvalidSae(f"tensor {plain} must be a matrix; its shape is {list(tensor.shape)}")
    return tensor.T if plain != name else tensor


def require_match(pattern: str, text: str, error_message: str) -> re.Match[str]:
    """Raises InvalidSae with the sentence `missing`."""
    if (found := re.search(pattern, text)) is None:
        raise InvalidSae(error_message)
    return found


def positive_number(raw: Mapping[str, Any], *keys: str, file: str) -> float:
    """A positive number under nested keys. Raises InvalidSae naming them."""
    value: Any = raw
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    if not isinstance(value, int | float) or isinstance(value, bool) or value <= 0:
        raise InvalidSae(f"{file}: {'.'.join(keys)} must be a positive number")
    return value


def require_string(raw: Mapping[str, Any], *keys: str, file: str) -> str:
    """A text under nested keys. Raises InvalidSae naming them."""
    value: Any = raw
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    if not isinstance(value, str):
        raise InvalidSae(f"{file}: {'.'.join(keys)} must be a text")
    return value


UNSAFE_LOAD_VARIABLE = "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"
"""Set, it makes torch.load run what is in a pickle, whatever its caller says."""
_DICTIONARY_TENSOR_NAMES = {
    "W_enc": ("W_enc", "encoder.weight.T"),
    "W_dec": ("W_dec", "decoder.weight.T"),
    "b_dec": ("b_dec", "bias", "decoder_bias"),
    "b_enc": ("b_enc", "encoder.bias"),
    "b_gate": ("gate_bias",),
    "b_mag": ("mag_bias",),
    "r_mag": ("r_mag",),
}
"""dictionary_learning: our name, and what its classes call it."""
_DICTIONARY_CLASSES = {
    "AutoEncoder": ("standard", True, ("b_enc",)),
    "AutoEncoderTopK": ("topk", True, ("b_enc",)),
    "GatedAutoEncoder": ("gated", True, ("b_gate", "b_mag", "r_mag")),
    "BatchTopKSAE": ("jumprelu", True, ("b_enc",)),
    "MatryoshkaBatchTopKSAE": ("jumprelu", True, ("b_enc",)),
    "JumpReluAutoEncoder": ("jumprelu", False, ("b_enc",)),
}
"""Its class → architecture, whether b_dec is subtracted before encoding, which biases the encoder has."""


def load_state_dict(file: Path) -> dict[str, Tensor]:
    """The tensors in a pickle. Raises InvalidSae when there is anything but plain values in it."""
    if UNSAFE_LOAD_VARIABLE in os.environ:
        raise InvalidSae(f"{UNSAFE_LOAD_VARIABLE} is set, with which a pickle could run code; unset it")
    try:
        loaded = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise InvalidSae(f"{file.name} is a pickle that holds more than tensors; it was not read") from error
    except (OSError, EOFError, RuntimeError, ValueError, KeyError) as error:
        raise InvalidSae(f"{file.name} is no whole file of torch's; download it again") from error
    if not isinstance(loaded, dict):
        raise InvalidSae(f"{file.name} holds no tensors by name")
    return {name: value for name, value in loaded.items() if isinstance(value, Tensor)}


def read_dictionary_learning(request: ConversionRequest) -> ConvertedSae:
    """github.com/saprmarks/dictionary_learning: the class in its configuration says what the arithmetic is."""
    raw = read_json_object(source_file(request, "config.json"))
    kind = require_string(raw, "trainer", "dict_class", file="config.json")
    if kind not in _DICTIONARY_CLASSES:
        raise InvalidSae(
            f"config.json: dict_class {kind!r} is not supported; supported are {', '.join(_DICTIONARY_CLASSES)}"
        )
    architecture, subtracts, biases = _DICTIONARY_CLASSES[kind]
    stored = load_state_dict(source_file(request))
    names = {
        ours: _first_present(stored, _DICTIONARY_TENSOR_NAMES[ours]) for ours in ("W_enc", "W_dec", "b_dec", *biases)
    }
    tensors = rename_tensors(stored, **names)
    if architecture == "jumprelu":  # AutoEncoderTopK has a threshold too, and does not use it
        tensors["threshold"] = rename_tensors(stored, threshold="threshold")["threshold"]
    return ConvertedSae(
        architecture=architecture,
        tensors=tensors,
        apply_b_dec_to_input=subtracts,
        k=int(positive_number(raw, "trainer", "k", file="config.json")) if architecture == "topk" else None,
        model_name=request.model or require_string(raw, "trainer", "lm_name", file="config.json"),
        hooks=_residual_hook(_trainer_layer(raw["trainer"])),
    )


def _first_present(stored: dict[str, Tensor], names: tuple[str, ...]) -> str:
    return next((name for name in names if name.removesuffix(".T") in stored), names[0])


def _trainer_layer(trainer: dict[str, Any]) -> int:
    module = trainer.get("submodule_name") or "resid_post"
    if not isinstance(module, str) or not module.startswith("resid_post"):
        raise InvalidSae(f"config.json: submodule {module!r} is not supported; it must be resid_post")
    layer = trainer.get("layer")
    if not isinstance(layer, int) or layer < 0:
        raise InvalidSae("config.json: trainer.layer must be a layer's number")
    return layer


def read_qwen_scope(request: ConversionRequest) -> ConvertedSae:
    """How many features are kept is only in the repository's name."""
    layer = require_match(r"layer(\d+)\.sae\.pt$", request.files[0], "the file's name does not say its layer")[1]
    said = "the repository's name does not say how many features are kept; it must end like SAE-Res-…-W32K-L0_50"
    k = require_match(r"-W\d+K-L0_(\d+)", f"{request.name} {request.source}", said)[1]
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
    layer = require_match(r"-l(\d+)\.pth?$", request.files[0], "the file's name does not say its layer (…-l19.pt)")[1]
    stored = load_state_dict(source_file(request))
    suffix = "_linear" if "encoder_linear.weight" in stored else ""
    names = {
        "W_enc": f"encoder{suffix}.weight.T",
        "b_enc": f"encoder{suffix}.bias",
        "W_dec": f"decoder{suffix}.weight.T",
        "b_dec": f"decoder{suffix}.bias",
    }
    return ConvertedSae(
        architecture="standard",
        tensors=rename_tensors(stored, **names),
        apply_b_dec_to_input=False,
        model_name=request.model,
        hooks=_residual_hook(int(layer)),
    )


def read_connor_rob(request: ConversionRequest) -> ConvertedSae:
    """SAEs of all heads of an attention layer together."""
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
