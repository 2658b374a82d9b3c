"""An SAE of another library, half way: its tensors in SAELens' names, and what its configuration comes to."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from millm.errors import InvalidSae
from millm.sae.foreign.order import ConversionRequest

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
