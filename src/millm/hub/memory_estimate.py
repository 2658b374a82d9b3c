"""Estimate the memory of a model and its SAEs on a device, from configuration and headers alone.

The formulas follow the engine (`model_loader`, `quantization`, `kv_cache`, `sae/steering_hook`); a test compares.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import msgspec

from millm.engine.limits import (
    INT8_BLOCK,
    INT8_MAX_INPUTS,
    INT8_MIN_WEIGHTS,
    MIN_CACHE_COLUMNS,
    NF4_BLOCK,
    PREFILL_CHUNK_TOKENS,
    SCRATCH_COLUMNS,
)
from millm.errors import InvalidModel
from millm.hub import checkpoint as headers
from millm.hub.checkpoint import (
    FLOAT_DTYPES,
    TensorHeader,
    checkpoint_dtype,
    checkpoint_quantization,
    first_positive_int,
    get_text_config,
    max_context_length,
    weight_files,
)
from millm.hub.entries import SaeEntry
from millm.hub.home import files_below
from millm.sae.config import FEATURE_BANK_SIZE, MAX_TABLE_ROWS, MAX_WATCHED_FEATURES
from millm.sae.steering import MAX_ENCODED_FEATURES
from millm.text.model_folder import is_generative_config

_MMAP_THRESHOLD = 32 << 20
"""malloc maps allocations of this size and above."""
DTYPE_BYTES = {"float64": 8, "float32": 4, "bfloat16": 2, "float16": 2}
_EMBEDDING = re.compile(r"(?:^|\.)(?:\w*embed\w*|wte|wpe|shared|relative_attention_bias)\.weight$")
_POSITION_EMBEDDING = re.compile(r"wpe|pos|type")
_LM_HEAD = re.compile(r"(?:^|\.)(?:lm_head|embed_out)\.weight$")
_NOT_LINEAR = re.compile(r"\.experts\.|\.router\.|norm\w*\.weight$")
"""An expert tensor holds all experts of a layer and is never packed."""
_CONV1D_MODEL_TYPES = ("gpt2", "openai-gpt")
"""Their linear layers are stored transposed."""
_UNUSED_BUFFERS = re.compile(r"\.attn\.(?:bias|masked_bias)$|\.inv_freq$")
"""Buffers in old files that are computed today."""
_KV_PROJECTION = re.compile(r"layers\.\d+\.\w*(?:attn|attention)\.(?:k_proj|v_proj)\.weight$")
_VISION_OR_AUDIO = re.compile(r"vision|visual|audio")


@dataclass(frozen=True)
class Checkpoint:
    """A model's configuration and the headers of its weights."""

    config: Mapping[str, Any]
    tensors: tuple[TensorHeader, ...]

    @classmethod
    def from_folder(cls, folder: Path) -> "Checkpoint":
        """`tensors` is empty without safetensors. Raises InvalidModel or OSError for unreadable files."""
        files = files_below(folder)
        tensors = tuple(tensor for file in weight_files(files) for tensor in headers.read_tensor_headers(file))
        return cls(headers.read_json_object(files["config.json"]) if "config.json" in files else {}, tensors)

    def resolve_dtype(self, requested: str, device: str) -> str:
        """The dtype that `auto` selects."""
        if requested != "auto":
            return requested
        return "float32" if device == "cpu" else checkpoint_dtype(self.config, list(self.tensors)) or "bfloat16"


def weight_bytes(checkpoint: Checkpoint, dtype: str, quantization: str) -> int:
    """Bytes after loading: linear layers packed by `quantization`, the rest in `dtype`."""
    if checkpoint_quantization(checkpoint.config):
        return sum(tensor.nbytes for tensor in checkpoint.tensors)
    packed = quantization if quantization != "none" else None
    return sum(_tensor_bytes(tensor, dtype, packed) for tensor in _loaded_tensors(checkpoint))


def int8_weight_bytes(checkpoint: Checkpoint) -> int:
    """Bytes on a CPU, packed in 8 bits. A head that is tied to an embedding is packed beside it."""
    used = _loaded_tensors(checkpoint)
    total = sum(_tensor_bytes(tensor, "float32", "int8" if _is_packed_as_int8(tensor) else None) for tensor in used)
    if not any(_LM_HEAD.search(tensor.name) for tensor in used):
        total += sum(
            _packed_bytes(tensor, "int8") for tensor in used if _is_packable_embedding(tensor, checkpoint.config)
        )
    return total


def float32_copy_bytes(checkpoint: Checkpoint) -> int:
    """Weights that become float32 before packing; float32 on the disk is memory-mapped and needs no copy."""
    return sum(
        4 * tensor.numel
        for tensor in _loaded_tensors(checkpoint)
        if tensor.dtype in FLOAT_DTYPES and tensor.dtype != "F32"
    )


def is_packed_int8(checkpoint: Checkpoint, device: str, dtype: str, quantization: str) -> bool:
    """As the engine decides unless the server sets `cpu_int8` off. `dtype`: the requested one."""
    unquantised = quantization == "none" and checkpoint_quantization(checkpoint.config) is None
    return device == "cpu" and dtype == "auto" and unquantised and is_generative_config(checkpoint.config)


def kv_cache_bytes(checkpoint: Checkpoint, dtype: str, context: int) -> int | None:
    """Of one row for `context` tokens; sliding windows store all their keys too."""
    per_token = _kv_values_per_token(checkpoint)
    if per_token is None:
        return None
    longest = max_context_length(checkpoint.config)
    columns = max(MIN_CACHE_COLUMNS, 1 << (context - 1).bit_length())
    columns = max(min(columns, longest), context) if longest else columns
    return per_token * DTYPE_BYTES[dtype] * (columns + SCRATCH_COLUMNS)


def activation_bytes(checkpoint: Checkpoint, dtype: str, device: str, slots: int) -> int | None:
    """An upper bound by shapes, for one prompt chunk and the logits of it or of all slots."""
    text = get_text_config(checkpoint.config)
    width = first_positive_int(text, "hidden_size", "n_embd", "d_model")
    vocabulary = first_positive_int(text, "vocab_size")
    if width is None or vocabulary is None:
        return None
    inner = first_positive_int(text, "intermediate_size", "n_inner", "ffn_dim") or 4 * width
    tokens = max(PREFILL_CHUNK_TOKENS["cpu" if device == "cpu" else "cuda"], slots)
    return tokens * ((4 * width + 3 * inner) * DTYPE_BYTES[dtype] + 2 * vocabulary * 4)


def sae_bytes(d_in: int, width: int, architecture: str) -> int:
    """Of a steering hook: its tables and the rows of features in use; the full encoder only where features compete."""
    rows, per_feature = MAX_TABLE_ROWS + 1, 2 * d_in + 2
    per_feature += 3 if architecture == "gated" else 0
    per_feature += 1 if architecture.startswith("jumprelu") else 0
    tables = rows * (d_in * 4 + MAX_ENCODED_FEATURES * (8 + 4 * 4) + MAX_WATCHED_FEATURES * 8)
    bank = (FEATURE_BANK_SIZE + 1) * (per_feature * 4 + 8)
    return tables + bank + (width * (d_in + 2) * 4 if architecture == "topk" else 0)


def _loaded_tensors(checkpoint: Checkpoint) -> list[TensorHeader]:
    """Without a head that the configuration ties to the embedding."""
    ties = checkpoint.config.get("tie_word_embeddings") is True
    turned = checkpoint.config.get("model_type") in _CONV1D_MODEL_TYPES
    return [
        replace(tensor, shape=tensor.shape[::-1]) if turned and _is_linear(tensor) else tensor
        for tensor in checkpoint.tensors
        if not _UNUSED_BUFFERS.search(tensor.name) and not (ties and _LM_HEAD.search(tensor.name))
    ]


def _tensor_bytes(tensor: TensorHeader, dtype: str, packed: str | None) -> int:
    is_packed = packed == "int8" or (packed and _is_linear(tensor) and not _LM_HEAD.search(tensor.name))
    if packed and is_packed:
        return _packed_bytes(tensor, packed)
    return tensor.numel * DTYPE_BYTES[dtype] if tensor.dtype in FLOAT_DTYPES else tensor.nbytes


def _packed_bytes(tensor: TensorHeader, quantization: str) -> int:
    """`int8`: a scale, a zero point and a sum per output; `8bit`: a scale; `4bit`: a scale per block, and the code."""
    if quantization == "4bit":
        return (tensor.numel + 1) // 2 + -(-tensor.numel // NF4_BLOCK) * 4 + 16 * 4
    if quantization == "8bit":
        return tensor.numel + tensor.shape[0] * 4
    return _padded_int8_bytes(tensor) + tensor.shape[0] * 12


def _padded_int8_bytes(tensor: TensorHeader) -> int:
    """fbgemm lays inputs out in blocks; the padding of a large layer is never touched."""
    is_large = tensor.numel >= _MMAP_THRESHOLD
    inputs = tensor.shape[1] if is_large else -(-tensor.shape[1] // INT8_BLOCK) * INT8_BLOCK
    return tensor.shape[0] * inputs


def _is_linear(tensor: TensorHeader) -> bool:
    if len(tensor.shape) != 2 or not tensor.name.endswith(".weight") or tensor.dtype not in FLOAT_DTYPES:
        return False
    return not _EMBEDDING.search(tensor.name) and not _NOT_LINEAR.search(tensor.name)


def _is_packed_as_int8(tensor: TensorHeader) -> bool:
    is_layer = _is_linear(tensor) or bool(_LM_HEAD.search(tensor.name))
    return is_layer and tensor.numel >= INT8_MIN_WEIGHTS and tensor.shape[-1] <= INT8_MAX_INPUTS


def _is_packable_embedding(tensor: TensorHeader, config: Mapping[str, Any]) -> bool:
    """True for the token embedding, if large enough to be packed as a head."""
    vocabulary = first_positive_int(get_text_config(config), "vocab_size")
    is_embedding = bool(_EMBEDDING.search(tensor.name)) and not _POSITION_EMBEDDING.search(tensor.name)
    return (
        is_embedding and len(tensor.shape) == 2 and tensor.shape[0] == vocabulary and tensor.numel >= INT8_MIN_WEIGHTS
    )


def _kv_values_per_token(checkpoint: Checkpoint) -> int | None:
    """Keys and values of one token in all layers: by the projections' shapes, else by the configuration."""
    projections = [
        tensor
        for tensor in checkpoint.tensors
        if _KV_PROJECTION.search(tensor.name) and not _VISION_OR_AUDIO.search(tensor.name)
    ]
    if projections and not checkpoint_quantization(checkpoint.config):
        return sum(tensor.shape[0] for tensor in projections)
    return _kv_values_from_config(get_text_config(checkpoint.config))


def _kv_values_from_config(config: Mapping[str, Any]) -> int | None:
    layers = first_positive_int(config, "num_hidden_layers", "n_layer", "num_layers")
    heads = first_positive_int(config, "num_attention_heads", "n_head", "num_heads")
    width = first_positive_int(config, "hidden_size", "n_embd", "d_model")
    if layers is None or heads is None or width is None:
        return None
    if first_positive_int(config, "kv_lora_rank"):
        depths: Sequence[int | None] = [
            first_positive_int(config, key) for key in ("qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim")
        ]
        return layers * heads * sum(depth or 0 for depth in depths)
    depth = first_positive_int(config, "head_dim") or width // heads
    return 2 * layers * (first_positive_int(config, "num_key_value_heads", "num_kv_heads") or heads) * depth


Verdict = Literal["fits", "does_not_fit", "unknown"]
Quantization = Literal["none", "8bit", "4bit"]
DEFAULT_CONTEXT = 4096
"""Tokens, or the model's maximum where that is lower."""
OVERHEAD_BYTES = {"cuda": 512 << 20, "cpu": 384 << 20}
"""The process without a model: CUDA's context and library workspace; Python with torch."""


class Estimate(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes on the device, part by part; None where the files do not state it."""

    model: str
    device: str
    """`cpu`, `cuda:0`…"""
    quantization: str
    dtype: str
    context: int | None
    slots: int
    weights: int | None
    while_loading: int | None = None
    """The peak during loading, where it exceeds the final weights."""
    kv_cache: int | None
    """Of one sequence of `context` tokens, the least that is useful."""
    kv_cache_all: int | None
    """Of `slots` such sequences."""
    saes: int
    activations: int | None
    overhead: int
    total: int | None
    """Weights, one sequence, SAEs, activations and overhead."""
    free: int | None
    """Bytes of the device that are free now."""
    evictable: int = 0
    """Bytes of the loaded model with its SAEs and cache, which is unloaded first."""
    verdict: Verdict
    advice: str = ""
    """A way to make it fit; empty where it fits."""


def estimate(
    source: Path | Checkpoint,
    *,
    name: str,
    device: str,
    quantization: Quantization = "none",
    dtype: str = "auto",
    context: int | None = None,
    slots: int = 1,
    saes: Sequence[SaeEntry] = (),
    free: int | None = None,
    evictable: int = 0,
    kv_share: float = 1.0,
    cpu_int8: bool = True,
) -> Estimate:
    """`device`: `cpu` or `cuda:N`; `kv_share`: the cache's share of the memory left after loading.

    Unknown parts are None and the verdict is then `unknown`, no reason to refuse. Damaged files raise nothing.
    """
    checkpoint = _read_checkpoint(source) if isinstance(source, Path) else source
    loaded_dtype = checkpoint.resolve_dtype(dtype, device)
    length = context or min(DEFAULT_CONTEXT, max_context_length(checkpoint.config) or DEFAULT_CONTEXT)
    row = kv_cache_bytes(checkpoint, loaded_dtype, length)
    is_int8 = cpu_int8 and is_packed_int8(checkpoint, device, dtype, quantization)
    result = Estimate(
        model=name,
        device=device,
        quantization=quantization,
        dtype=loaded_dtype,
        context=length,
        slots=slots,
        weights=_loaded_bytes(checkpoint, loaded_dtype, quantization, is_int8=is_int8),
        while_loading=(float32_copy_bytes(checkpoint) or None) if is_int8 else None,
        kv_cache=row,
        kv_cache_all=None if row is None else row * slots,
        saes=sum(_estimate_sae(entry) for entry in saes),
        activations=activation_bytes(checkpoint, loaded_dtype, device, slots),
        overhead=OVERHEAD_BYTES["cpu" if device == "cpu" else "cuda"],
        total=None,
        free=free,
        evictable=evictable,
        verdict="unknown",
    )
    if result.weights is not None and row is not None and result.activations is not None:
        total = result.weights + row + result.saes + result.activations + result.overhead
        result = msgspec.structs.replace(result, total=total)
    return msgspec.structs.replace(result, verdict=_verdict(result), advice=_advice(result, checkpoint, kv_share))


def _read_checkpoint(folder: Path) -> Checkpoint:
    try:
        return Checkpoint.from_folder(folder)
    except (InvalidModel, OSError):
        return Checkpoint({}, ())


def _loaded_bytes(checkpoint: Checkpoint, dtype: str, quantization: str, *, is_int8: bool) -> int | None:
    if not checkpoint.tensors:
        return None
    return int8_weight_bytes(checkpoint) if is_int8 else weight_bytes(checkpoint, dtype, quantization)


def _estimate_sae(entry: SaeEntry) -> int:
    """The size of the files for an SAE of unknown shape."""
    if entry.d_in is None or entry.width is None:
        return entry.size
    return sae_bytes(entry.d_in, entry.width, entry.architecture or "standard")


def minimum_bytes(result: Estimate) -> int:
    """The lower bound for a load."""
    return max(
        result.total or 0, (result.weights or 0) + result.overhead, (result.while_loading or 0) + result.overhead
    )


def _verdict(result: Estimate) -> Verdict:
    if result.free is None or result.weights is None:
        return "unknown"
    if minimum_bytes(result) > result.free + result.evictable:
        return "does_not_fit"
    return "unknown" if result.total is None else "fits"


def _advice(result: Estimate, checkpoint: Checkpoint, kv_share: float) -> str:
    verdict = _verdict(result)
    if verdict == "fits":
        return _concurrency_advice(result, kv_share)
    if verdict == "unknown" or result.free is None:
        return ""
    available = result.free + result.evictable
    shortage = f"it needs {_gb(minimum_bytes(result))} and {_gb(available)} are available"
    return f"{shortage}; {_reduction_advice(result, checkpoint, available)}"


def _reduction_advice(result: Estimate, checkpoint: Checkpoint, available: int) -> str:
    """The smallest change that would make it fit."""
    weights, rest = result.weights or 0, (result.total or result.overhead) - (result.weights or 0)
    shortest = max(weights + rest - (result.kv_cache or 0), (result.while_loading or 0) + result.overhead)
    if result.kv_cache and shortest <= available:
        return "ask for a shorter context"
    if result.quantization == "none":
        for bits in ("8bit", "4bit"):
            smaller = weight_bytes(checkpoint, result.dtype, bits) + rest
            if smaller <= available:
                return f"quantization {bits} needs about {_gb(smaller)}"
    return "choose a smaller model, or `force` to try all the same"


def _concurrency_advice(result: Estimate, kv_share: float) -> str:
    """The number of sequences of this length with room at once, if below `slots`."""
    if result.free is None or not result.kv_cache or result.total is None:
        return ""
    available = result.free + result.evictable - (result.total - result.kv_cache)
    count = max(int(available * kv_share) // result.kv_cache, 1)
    if count >= result.slots:
        return ""
    return f"{count} of {result.slots} sequences of {result.context:,} tokens run at once; the others wait"


def _gb(count: int) -> str:
    return f"{count / 1e9:.1f} GB"
