"""What a model's configuration and its weights' headers say of it: for a list, without loading anything."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from millm.hub import headers
from millm.hub.headers import FLOAT_DTYPES, TensorHeader
from millm.hub.screen import needs_remote_code
from millm.hub.tree import File
from millm.hub.whole import weight_files
from millm.text.model_folder import is_generative_config

_CONTEXT_LENGTH_KEYS = (
    "max_position_embeddings",
    "n_positions",
    "n_ctx",
    "seq_length",
    "max_sequence_length",
    "max_seq_len",
)


@dataclass(frozen=True)
class ModelMetadata:
    architecture: str | None = None
    model_type: str | None = None
    parameters: int | None = None
    """None also for weights that are packed already."""
    dtype: str | None = None
    quantization: str | None = None
    context_length: int | None = None
    generates: bool = True
    needs_remote_code: bool = False


def read_model_metadata(files: Mapping[str, File]) -> ModelMetadata:
    """Raises InvalidModel for files that are not what they should be."""
    config = headers.read_json_object(files["config.json"])
    tensors = [tensor for file in weight_files(files) for tensor in headers.read_tensor_headers(file)]
    held = checkpoint_quantization(config)
    architectures = config.get("architectures")
    return ModelMetadata(
        architecture=_string_or_none(architectures[0]) if isinstance(architectures, list) and architectures else None,
        model_type=_string_or_none(config.get("model_type")),
        parameters=sum(tensor.numel for tensor in tensors) if tensors and not held else None,
        dtype=checkpoint_dtype(config, tensors),
        quantization=held,
        context_length=max_context_length(config),
        generates=is_generative_config(config),
        needs_remote_code=needs_remote_code(config),
    )


def _string_or_none(value: object) -> str | None:
    return value if isinstance(value, str) else None


def get_text_config(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The language model's own settings, in models that also see or hear."""
    inner = config.get("text_config")
    return inner if isinstance(inner, dict) else config


def first_positive_int(config: Mapping[str, Any], *keys: str) -> int | None:
    """The first of the keys that holds a whole number above 0."""
    for key in keys:
        value = config.get(key)
        if isinstance(value, int) and not isinstance(value, bool) and value > 0:
            return value
    return None


def max_context_length(config: Mapping[str, Any]) -> int | None:
    return first_positive_int(get_text_config(config), *_CONTEXT_LENGTH_KEYS)


def checkpoint_dtype(config: Mapping[str, Any], tensors: list[TensorHeader]) -> str | None:
    """What the checkpoint says of itself, else what most of its numbers are: transformers' `auto`."""
    for part in (config, get_text_config(config)):
        for key in ("dtype", "torch_dtype"):
            if (said := str(part.get(key)).removeprefix("torch.")) in FLOAT_DTYPES.values():
                return said
    counts: Counter[str] = Counter()
    for tensor in tensors:
        if tensor.dtype in FLOAT_DTYPES:
            counts[FLOAT_DTYPES[tensor.dtype]] += tensor.numel
    return counts.most_common(1)[0][0] if counts else None


def checkpoint_quantization(config: Mapping[str, Any]) -> str | None:
    """`8bit`, `4bit` or the method's own name, of weights that are quantised on the disk."""
    values = config.get("quantization_config")
    if not isinstance(values, dict) or not values:
        return None
    for bits in ("8bit", "4bit"):
        if values.get(f"load_in_{bits}"):
            return bits
    return str(values.get("quant_method", "unknown"))
