"""What a model's configuration and its weights' headers say of it: for a list, without loading anything."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from millm.hub import headers
from millm.hub.headers import FLOATS, Tensor
from millm.hub.screen import needs_remote_code
from millm.hub.tree import File
from millm.hub.whole import weights_of
from millm.text.head import writes

_CONTEXT = ("max_position_embeddings", "n_positions", "n_ctx", "seq_length", "max_sequence_length", "max_seq_len")


@dataclass(frozen=True)
class Told:
    architecture: str | None = None
    model_type: str | None = None
    parameters: int | None = None
    """None also for weights that are packed already."""
    dtype: str | None = None
    quantization: str | None = None
    context_length: int | None = None
    generates: bool = True
    needs_remote_code: bool = False


def told(files: Mapping[str, File]) -> Told:
    """Raises InvalidModel for files that are not what they should be."""
    config = headers.json_object(files["config.json"])
    tensors = [tensor for file in weights_of(files) for tensor in headers.tensors(file)]
    held = held_quantization(config)
    architectures = config.get("architectures")
    return Told(
        architecture=_text(architectures[0]) if isinstance(architectures, list) and architectures else None,
        model_type=_text(config.get("model_type")),
        parameters=sum(tensor.numbers for tensor in tensors) if tensors and not held else None,
        dtype=dtype_of(config, tensors),
        quantization=held,
        context_length=context_of(config),
        generates=writes(config),
        needs_remote_code=needs_remote_code(config),
    )


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def text_part(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The language model's own settings, in models that also see or hear."""
    inner = config.get("text_config")
    return inner if isinstance(inner, dict) else config


def number(config: Mapping[str, Any], *keys: str) -> int | None:
    """The first of the keys that holds a whole number above 0."""
    for key in keys:
        value = config.get(key)
        if isinstance(value, int) and not isinstance(value, bool) and value > 0:
            return value
    return None


def context_of(config: Mapping[str, Any]) -> int | None:
    return number(text_part(config), *_CONTEXT)


def dtype_of(config: Mapping[str, Any], tensors: list[Tensor]) -> str | None:
    """What the checkpoint says of itself, else what most of its numbers are: transformers' `auto`."""
    for part in (config, text_part(config)):
        for key in ("dtype", "torch_dtype"):
            if (said := str(part.get(key)).removeprefix("torch.")) in FLOATS.values():
                return said
    counts: Counter[str] = Counter()
    for tensor in tensors:
        if tensor.dtype in FLOATS:
            counts[FLOATS[tensor.dtype]] += tensor.numbers
    return counts.most_common(1)[0][0] if counts else None


def held_quantization(config: Mapping[str, Any]) -> str | None:
    """`8bit`, `4bit` or the method's own name, of weights that are quantised on the disk."""
    values = config.get("quantization_config")
    if not isinstance(values, dict) or not values:
        return None
    for bits in ("8bit", "4bit"):
        if values.get(f"load_in_{bits}"):
            return bits
    return str(values.get("quant_method", "unknown"))
