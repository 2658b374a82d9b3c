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
        corrected["k"] = _k_from_percentage(cfg)
    return corrected


def _k_from_percentage(cfg: _MistudioConfig) -> int:
    percent = cfg.extra_metadata.top_k_sparsity if cfg.extra_metadata else None
    if percent is None:
        raise InvalidSae("cfg.json: a topk SAE needs k; extra_metadata.top_k_sparsity is missing")
    return max(1, int(percent / 100 * cfg.d_sae))


def _hook_module(cfg: _MistudioConfig, folder: Path) -> str | None:
    match = _FOLDER_PATTERN.match(folder.name)
    layer = match["layer"] if match else cfg.hook_point_layer
    if layer is None:
        return None
    site = (match["site"] if match else None) or "residual"
    layers = "transformer.h" if _is_gpt2(cfg) else "model.layers"
    return f"{layers}.{layer}.{_site_module(cfg, site)}.output"


def _site_module(cfg: _MistudioConfig, site: str) -> str:
    if site == "mlp":
        return "mlp"
    if site == "attention":
        return "attn" if _is_gpt2(cfg) else "self_attn"
    if _is_gpt2(cfg):
        return "ln_2"
    return "operator_norm" if "lfm2" in _model_name(cfg) else "post_attention_layernorm"


def _is_gpt2(cfg: _MistudioConfig) -> bool:
    return "gpt2" in _model_name(cfg)


def _model_name(cfg: _MistudioConfig) -> str:
    hf_name = cfg.extra_metadata.hf_model_name if cfg.extra_metadata else None
    return (hf_name or cfg.model_name or "").lower()
