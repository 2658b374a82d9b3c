"""SAEs of other libraries whose weights are pickles: opened as plain tensors, with nothing in them ever run.

dictionary_learning, Qwen Scope, Goodfire, DeepSeek R1, Connor & Rob's attention SAEs; each is held against SAELens'
loader (`tests/sae/test_convert.py`).
"""

import os
import pickle
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

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
from millm.sae.formats.source import read_json_object

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
