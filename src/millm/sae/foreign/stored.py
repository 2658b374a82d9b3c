"""SAEs of other libraries whose weights are safetensors: Llama Scope, EleutherAI's sparsify, Qwen3 transcoders.

Each is a renaming and a transposition, held against SAELens' loader where that is right (`tests/sae/test_convert.py`).
"""

import math
import re
from typing import Any

import torch

from millm.errors import InvalidSae
from millm.sae.foreign.order import Order
from millm.sae.foreign.source import Foreign, found_in, number, path, renamed, text
from millm.sae.formats.source import json_object, safetensors_file

_LINEAR = {
    "W_enc": "encoder.weight.T",
    "b_enc": "encoder.bias",
    "W_dec": "decoder.weight.T",
    "b_dec": "decoder.bias",
}
_NOT_DONE = {"signed": False, "skip_connection": False, "transcode": False, "activation": "topk"}
"""sparsify's settings, and the one value of each whose arithmetic we do."""


def llama_scope(order: Order) -> Foreign:
    """One threshold for all features, moved with the input's scale as SAELens moves it: what Neuronpedia shows too."""
    raw = json_object(path(order, ".json"))
    name = path(order, ".json").name
    tensors = renamed(safetensors_file(path(order)), **_LINEAR)
    scale = _scale(raw, name)
    threshold = number(raw, "jump_relu_threshold", file=name) * scale
    return Foreign(
        architecture="jumprelu",
        tensors=tensors | {"threshold": torch.full(tensors["b_enc"].shape, threshold)},
        apply_b_dec_to_input=False,
        input_scale=scale,
        model_name=order.model or "meta-llama/Llama-3.1-8B",
        hooks={"hook_name": _hook(raw, name)},
    )


def llama_scope_r1_distill(order: Order) -> Foreign:
    """The files may not say the input's scale; then the catalogue does."""
    raw = json_object(path(order, ".json"))
    name = path(order, ".json").name
    stored = safetensors_file(path(order))
    threshold = renamed(stored, threshold="log_jumprelu_threshold")["threshold"].float().exp()
    return Foreign(
        architecture="jumprelu",
        tensors=renamed(stored, **_LINEAR) | {"threshold": threshold},
        apply_b_dec_to_input=False,
        input_scale=order.input_scale or _scale(raw, name),
        model_name=order.model,
        hooks={"hook_name": _hook(raw, name)},
    )


def _scale(raw: dict[str, Any], file: str) -> float:
    """Trained on activations whose mean norm was made √d."""
    return math.sqrt(number(raw, "d_model", file=file)) / number(
        raw, "dataset_average_activation_norm", "in", file=file
    )


def _hook(raw: dict[str, Any], file: str) -> str:
    hook = text(raw, "hook_point_in", file=file)
    if raw.get("hook_point_out", hook) != hook:
        raise InvalidSae(f"{file}: it reads {hook} and writes elsewhere; such transcoders are not supported")
    return hook


def sparsify(order: Order) -> Foreign:
    """Keeps the k largest and subtracts b_dec before, always; W_dec lies feature by feature (sparsify's `SparseCoder`).

    SAELens 6.54 reads it wrong on both counts.
    """
    raw = json_object(path(order, "cfg.json"))
    for key, value in _NOT_DONE.items():
        if raw.get(key, value) != value:
            raise InvalidSae(f"cfg.json: {key} {raw[key]!r} is not supported; it must be {value!r}")
    names = {"W_enc": "encoder.weight.T", "b_enc": "encoder.bias", "W_dec": "W_dec", "b_dec": "b_dec"}
    return Foreign(
        architecture="topk",
        tensors=renamed(safetensors_file(path(order)), **names),
        apply_b_dec_to_input=True,
        k=int(number(raw, "k", file="cfg.json")),
        model_name=order.model,
        hooks=_sparsify_hooks(order.name.partition("@")[0]),
    )


def _sparsify_hooks(name: str) -> dict[str, str]:
    """The folder is named after transformers' module, whose output it reads; unknown where it is not."""
    module = re.search(r"(?:^|[/.])((?:layers|h)\.(\d+)(?:\.\w+)*)$", name)
    if module is None:
        return {"hook_name": "hook_embed"} if name.endswith("embed_tokens") else {}
    whole_layer = module[1].count(".") == 1
    lens = {"hook_name": f"blocks.{module[2]}.hook_resid_post"} if whole_layer else {}
    return lens | {"hf_hook_name": f"{module[1]}.output"}


def mwhanna(order: Order) -> Foreign:
    """Transcoders from what goes into the MLP to what comes out: to watch."""
    layer = found_in(r"layer_(\d+)\.safetensors$", order.files[0], "the file's name does not say its layer")[1]
    return Foreign(
        architecture="transcoder",
        tensors=renamed(safetensors_file(path(order)), W_enc="W_enc.T", b_enc="b_enc", W_dec="W_dec", b_dec="b_dec"),
        apply_b_dec_to_input=False,
        model_name=order.model,
        hooks={"hook_name": f"blocks.{layer}.mlp.hook_in", "hook_name_out": f"blocks.{layer}.hook_mlp_out"},
    )
