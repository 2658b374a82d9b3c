"""Correct the `cfg.json` of a miStudio export, which has SAELens' layout.

It names `blocks.L.hook_resid_post`, but the SAE reads the module named below, and k is a percentage.
"""

import re
from pathlib import Path
from typing import Annotated, Any

import msgspec

from millm.errors import InvalidSae
from millm.sae.config import Width
from millm.sae.formats.reader import convert_to_struct

_FOLDER_PATTERN = re.compile(r"^layer_(?P<layer>\d+)(?:_(?P<site>residual|mlp|attention))?$")
_MODULES = {"residual": "post_attention_layernorm", "mlp": "mlp", "attention": "self_attn"}
_GPT2_MODULES = {"residual": "ln_2", "mlp": "mlp", "attention": "attn"}


class _MistudioExtra(msgspec.Struct, frozen=True):
    hf_model_name: str | None = None
    top_k_sparsity: Annotated[float, msgspec.Meta(gt=0, le=100)] | None = None
    """Percentage of the features."""


class _MistudioConfig(msgspec.Struct, frozen=True):
    d_sae: Width
    model_name: str | None = None
    hook_point_layer: Annotated[int, msgspec.Meta(ge=0)] | None = None
    extra_metadata: _MistudioExtra | None = None


def is_mistudio_export(raw: dict[str, Any]) -> bool:
    return "mistudio_training_id" in raw


def to_saelens_config(raw: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The corrected `cfg.json`. Raises InvalidSae for a field of the wrong type."""
    cfg = convert_to_struct(raw, _MistudioConfig, "cfg.json")
    corrected = raw | {"hook_name": None, "hook_point": None, "hf_hook_name": _hook_module(cfg, folder)}
    if raw.get("activation_fn_str") == "topk":
        percent = cfg.extra_metadata.top_k_sparsity if cfg.extra_metadata else None
        if percent is None:
            raise InvalidSae("cfg.json: a topk SAE needs k; extra_metadata.top_k_sparsity is missing")
        corrected["k"] = max(1, int(percent / 100 * cfg.d_sae))
    return corrected


def _hook_module(cfg: _MistudioConfig, folder: Path) -> str | None:
    match = _FOLDER_PATTERN.match(folder.name)
    layer = match["layer"] if match else cfg.hook_point_layer
    if layer is None:
        return None
    site = (match["site"] if match else None) or "residual"
    hf_name = cfg.extra_metadata.hf_model_name if cfg.extra_metadata else None
    model = (hf_name or cfg.model_name or "").lower()
    if "gpt2" in model:
        return f"transformer.h.{layer}.{_GPT2_MODULES[site]}.output"
    if site == "residual" and "lfm2" in model:
        return f"model.layers.{layer}.operator_norm.output"
    return f"model.layers.{layer}.{_MODULES[site]}.output"
