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
from millm.sae.foreign.order import Order
from millm.sae.foreign.source import Foreign, found_in, number, path, renamed, text
from millm.sae.formats.source import json_object

OVERRIDE = "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"
"""Set, it makes torch.load run what is in a pickle, whatever its caller says."""

_RENAMED = {
    "W_enc": ("W_enc", "encoder.weight.T"),
    "W_dec": ("W_dec", "decoder.weight.T"),
    "b_dec": ("b_dec", "bias", "decoder_bias"),
    "b_enc": ("b_enc", "encoder.bias"),
    "b_gate": ("gate_bias",),
    "b_mag": ("mag_bias",),
    "r_mag": ("r_mag",),
}
"""dictionary_learning: our name, and what its classes call it."""

_CLASSES = {
    "AutoEncoder": ("standard", True, ("b_enc",)),
    "AutoEncoderTopK": ("topk", True, ("b_enc",)),
    "GatedAutoEncoder": ("gated", True, ("b_gate", "b_mag", "r_mag")),
    "BatchTopKSAE": ("jumprelu", True, ("b_enc",)),
    "MatryoshkaBatchTopKSAE": ("jumprelu", True, ("b_enc",)),
    "JumpReluAutoEncoder": ("jumprelu", False, ("b_enc",)),
}
"""Its class → architecture, whether b_dec is subtracted before encoding, which biases the encoder has."""


def state_dict(file: Path) -> dict[str, Tensor]:
    """The tensors in a pickle. Raises InvalidSae when there is anything but plain values in it."""
    if OVERRIDE in os.environ:
        raise InvalidSae(f"{OVERRIDE} is set, with which a pickle could run code; unset it")
    try:
        loaded = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise InvalidSae(f"{file.name} is a pickle that holds more than tensors; it was not read") from error
    except (OSError, EOFError, RuntimeError, ValueError, KeyError) as error:
        raise InvalidSae(f"{file.name} is no whole file of torch's; download it again") from error
    if not isinstance(loaded, dict):
        raise InvalidSae(f"{file.name} holds no tensors by name")
    return {name: value for name, value in loaded.items() if isinstance(value, Tensor)}


def dictionary_learning(order: Order) -> Foreign:
    """github.com/saprmarks/dictionary_learning: the class in its configuration says what the arithmetic is."""
    raw = json_object(path(order, "config.json"))
    kind = text(raw, "trainer", "dict_class", file="config.json")
    if kind not in _CLASSES:
        raise InvalidSae(f"config.json: dict_class {kind!r} is not supported; supported are {', '.join(_CLASSES)}")
    architecture, subtracts, biases = _CLASSES[kind]
    stored = state_dict(path(order))
    names = {ours: _first(stored, _RENAMED[ours]) for ours in ("W_enc", "W_dec", "b_dec", *biases)}
    tensors = renamed(stored, **names)
    if architecture == "jumprelu":  # AutoEncoderTopK has a threshold too, and does not use it
        tensors["threshold"] = renamed(stored, threshold="threshold")["threshold"]
    return Foreign(
        architecture=architecture,
        tensors=tensors,
        apply_b_dec_to_input=subtracts,
        k=int(number(raw, "trainer", "k", file="config.json")) if architecture == "topk" else None,
        model_name=order.model or text(raw, "trainer", "lm_name", file="config.json"),
        hooks=_residual(_layer(raw["trainer"])),
    )


def _first(stored: dict[str, Tensor], names: tuple[str, ...]) -> str:
    return next((name for name in names if name.removesuffix(".T") in stored), names[0])


def _layer(trainer: dict[str, Any]) -> int:
    module = trainer.get("submodule_name") or "resid_post"
    if not isinstance(module, str) or not module.startswith("resid_post"):
        raise InvalidSae(f"config.json: submodule {module!r} is not supported; it must be resid_post")
    layer = trainer.get("layer")
    if not isinstance(layer, int) or layer < 0:
        raise InvalidSae("config.json: trainer.layer must be a layer's number")
    return layer


def qwen_scope(order: Order) -> Foreign:
    """How many features are kept is only in the repository's name."""
    layer = found_in(r"layer(\d+)\.sae\.pt$", order.files[0], "the file's name does not say its layer")[1]
    said = "the repository's name does not say how many features are kept; it must end like SAE-Res-…-W32K-L0_50"
    k = found_in(r"-W\d+K-L0_(\d+)", f"{order.name} {order.source}", said)[1]
    stored = state_dict(path(order))
    return Foreign(
        architecture="topk",
        tensors=renamed(stored, W_enc="W_enc.T", W_dec="W_dec.T", b_enc="b_enc", b_dec="b_dec"),
        apply_b_dec_to_input=False,
        k=int(k),
        model_name=order.model,
        hooks=_residual(int(layer)) | {"hf_hook_name": f"model.layers.{layer}.output"},
    )


def torch_linear(order: Order) -> Foreign:
    """Two linear layers with a ReLU between: Goodfire's, and the one of DeepSeek R1."""
    layer = found_in(r"-l(\d+)\.pth?$", order.files[0], "the file's name does not say its layer (…-l19.pt)")[1]
    stored = state_dict(path(order))
    suffix = "_linear" if "encoder_linear.weight" in stored else ""
    names = {
        "W_enc": f"encoder{suffix}.weight.T",
        "b_enc": f"encoder{suffix}.bias",
        "W_dec": f"decoder{suffix}.weight.T",
        "b_dec": f"decoder{suffix}.bias",
    }
    return Foreign(
        architecture="standard",
        tensors=renamed(stored, **names),
        apply_b_dec_to_input=False,
        model_name=order.model,
        hooks=_residual(int(layer)),
    )


def connor_rob(order: Order) -> Foreign:
    """SAEs of all heads of an attention layer together."""
    hook = text(json_object(path(order, "_cfg.json")), "act_name", file="_cfg.json")
    stored = state_dict(path(order))
    return Foreign(
        architecture="standard",
        tensors=renamed(stored, W_enc="W_enc", b_enc="b_enc", W_dec="W_dec", b_dec="b_dec"),
        apply_b_dec_to_input=True,
        model_name=order.model,
        hooks={"hook_name": hook},
    )


def _residual(layer: int) -> dict[str, str]:
    return {"hook_name": f"blocks.{layer}.hook_resid_post"}
