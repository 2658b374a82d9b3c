"""How many bytes the parts of a model and of an SAE take on a device, told from configuration and headers.

It follows what the engine does (`engine/model.py`, `cpu_int8.py`, `quantization.py`, `cache.py`, `sae/tap.py`). A test
loads models and counts.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from millm.engine.sizes import CHUNK, INT8_BLOCK, INT8_SMALLEST, INT8_WIDEST, NF4_BLOCK, SHORTEST, SPARE
from millm.hub import headers
from millm.hub.headers import FLOATS, Tensor
from millm.hub.model_told import context_of, dtype_of, held_quantization, number, text_part
from millm.hub.tree import files_below
from millm.hub.whole import weights_of
from millm.sae.sizes import BANK_SIZE, MAX_ROWS, MAX_WATCHED_FEATURES
from millm.sae.steering import MAX_ENCODED_FEATURES
from millm.text.head import writes

_MAPPED = 32 << 20
"""Bytes from which on malloc maps what it gives."""

BYTES = {"float64": 8, "float32": 4, "bfloat16": 2, "float16": 2}

_EMBEDDING = re.compile(r"(?:^|\.)(?:\w*embed\w*|wte|wpe|shared|relative_attention_bias)\.weight$")
_POSITION = re.compile(r"wpe|pos|type")
_HEAD = re.compile(r"(?:^|\.)(?:lm_head|embed_out)\.weight$")
_NOT_LINEAR = re.compile(r"\.experts\.|\.router\.|norm\w*\.weight$")
"""Experts are one tensor for all of them, which stays as it is."""
_INPUTS_FIRST = ("gpt2", "openai-gpt")
"""Their linear layers are stored the other way round."""
_UNUSED = re.compile(r"\.attn\.(?:bias|masked_bias)$|\.inv_freq$")
"""In old files: buffers that are computed today."""
_KEYS = re.compile(r"layers\.\d+\.\w*(?:attn|attention)\.(?:k_proj|v_proj)\.weight$")
_SEES = re.compile(r"vision|visual|audio")


@dataclass(frozen=True)
class Checkpoint:
    """A model's configuration and the headers of its weights."""

    config: Mapping[str, Any]
    tensors: tuple[Tensor, ...]

    @classmethod
    def of(cls, folder: Path) -> "Checkpoint":
        """Raises InvalidModel or OSError for what cannot be read. Without safetensors, `tensors` is empty."""
        files = files_below(folder)
        tensors = tuple(tensor for file in weights_of(files) for tensor in headers.tensors(file))
        return cls(headers.json_object(files["config.json"]) if "config.json" in files else {}, tensors)

    def dtype(self, asked: str, device: str) -> str:
        """What `auto` stands for."""
        if asked != "auto":
            return asked
        return "float32" if device == "cpu" else dtype_of(self.config, list(self.tensors)) or "bfloat16"


def weights(checkpoint: Checkpoint, dtype: str, quantization: str) -> int:
    """Once they are loaded: linear layers as `quantization` packs them, the rest in `dtype`."""
    if held_quantization(checkpoint.config):
        return sum(tensor.bytes for tensor in checkpoint.tensors)
    packed = quantization if quantization != "none" else None
    return sum(_bytes(tensor, dtype, packed) for tensor in _used(checkpoint))


def int8_weights(checkpoint: Checkpoint) -> int:
    """On a CPU, packed in 8 bits. A head that is tied to an embedding is packed beside it."""
    used = _used(checkpoint)
    total = sum(_bytes(tensor, "float32", "int8" if _gains(tensor) else None) for tensor in used)
    if not any(_HEAD.search(tensor.name) for tensor in used):
        total += sum(_packed(tensor, "int8") for tensor in used if _is_input(tensor, checkpoint.config))
    return total


def widened(checkpoint: Checkpoint) -> int:
    """What becomes float32 before it is packed; weights that are float32 on the disk are mapped and take nothing."""
    return sum(4 * tensor.numbers for tensor in _used(checkpoint) if tensor.dtype in FLOATS and tensor.dtype != "F32")


def is_packed_int8(checkpoint: Checkpoint, device: str, dtype: str, quantization: str) -> bool:
    """By `engine.model.pack`, if the server's `cpu_int8` does not say otherwise. `dtype`: what was asked."""
    unquantised = quantization == "none" and held_quantization(checkpoint.config) is None
    return device == "cpu" and dtype == "auto" and unquantised and writes(checkpoint.config)


def kv_cache(checkpoint: Checkpoint, dtype: str, context: int) -> int | None:
    """Of one row that is long enough for `context` tokens. Sliding windows keep all their keys, as `cache.py` does."""
    per_token = _numbers_per_token(checkpoint)
    if per_token is None:
        return None
    longest = context_of(checkpoint.config)
    columns = max(SHORTEST, 1 << (context - 1).bit_length())
    columns = max(min(columns, longest), context) if longest else columns
    return per_token * BYTES[dtype] * (columns + SPARE)


def activations(checkpoint: Checkpoint, dtype: str, device: str, slots: int) -> int | None:
    """While a chunk of a prompt goes through, and logits for it or for every slot: an upper bound by shapes."""
    text = text_part(checkpoint.config)
    width, vocabulary = number(text, "hidden_size", "n_embd", "d_model"), number(text, "vocab_size")
    if width is None or vocabulary is None:
        return None
    inner = number(text, "intermediate_size", "n_inner", "ffn_dim") or 4 * width
    tokens = max(CHUNK["cpu" if device == "cpu" else "cuda"], slots)
    return tokens * ((4 * width + 3 * inner) * BYTES[dtype] + 2 * vocabulary * 4)


def sae(d_in: int, width: int, architecture: str) -> int:
    """Of a tap: its tables, and the rows of the features in use; the whole encoder only where all features compete."""
    rows, per_feature = MAX_ROWS + 1, 2 * d_in + 2
    per_feature += 3 if architecture == "gated" else 0
    per_feature += 1 if architecture.startswith("jumprelu") else 0
    tables = rows * (d_in * 4 + MAX_ENCODED_FEATURES * (8 + 4 * 4) + MAX_WATCHED_FEATURES * 8)
    bank = (BANK_SIZE + 1) * (per_feature * 4 + 8)
    return tables + bank + (width * (d_in + 2) * 4 if architecture == "topk" else 0)


def _used(checkpoint: Checkpoint) -> list[Tensor]:
    """Those the model has: a head that the configuration ties to the embedding is the embedding."""
    ties = checkpoint.config.get("tie_word_embeddings") is True
    turned = checkpoint.config.get("model_type") in _INPUTS_FIRST
    return [
        replace(tensor, shape=tensor.shape[::-1]) if turned and _is_linear(tensor) else tensor
        for tensor in checkpoint.tensors
        if not _UNUSED.search(tensor.name) and not (ties and _HEAD.search(tensor.name))
    ]


def _bytes(tensor: Tensor, dtype: str, packed: str | None) -> int:
    is_packed = packed == "int8" or (packed and _is_linear(tensor) and not _HEAD.search(tensor.name))
    if packed and is_packed:
        return _packed(tensor, packed)
    return tensor.numbers * BYTES[dtype] if tensor.dtype in FLOATS else tensor.bytes


def _packed(tensor: Tensor, how: str) -> int:
    """`int8`: a scale, a zero point and a sum per output; `8bit`: a scale; `4bit`: a scale per block, and the code."""
    if how == "4bit":
        return (tensor.numbers + 1) // 2 + -(-tensor.numbers // NF4_BLOCK) * 4 + 16 * 4
    if how == "8bit":
        return tensor.numbers + tensor.shape[0] * 4
    return _padded(tensor) + tensor.shape[0] * 12


def _padded(tensor: Tensor) -> int:
    """fbgemm lays inputs out in blocks; the padding of a large layer is memory that is never touched."""
    is_large = tensor.numbers >= _MAPPED
    inputs = tensor.shape[1] if is_large else -(-tensor.shape[1] // INT8_BLOCK) * INT8_BLOCK
    return tensor.shape[0] * inputs


def _is_linear(tensor: Tensor) -> bool:
    if len(tensor.shape) != 2 or not tensor.name.endswith(".weight") or tensor.dtype not in FLOATS:
        return False
    return not _EMBEDDING.search(tensor.name) and not _NOT_LINEAR.search(tensor.name)


def _gains(tensor: Tensor) -> bool:
    is_layer = _is_linear(tensor) or bool(_HEAD.search(tensor.name))
    return is_layer and tensor.numbers >= INT8_SMALLEST and tensor.shape[-1] <= INT8_WIDEST


def _is_input(tensor: Tensor, config: Mapping[str, Any]) -> bool:
    """The embedding of tokens, large enough to be packed as a head."""
    vocabulary = number(text_part(config), "vocab_size")
    is_embedding = bool(_EMBEDDING.search(tensor.name)) and not _POSITION.search(tensor.name)
    return is_embedding and len(tensor.shape) == 2 and tensor.shape[0] == vocabulary and tensor.numbers >= INT8_SMALLEST


def _numbers_per_token(checkpoint: Checkpoint) -> int | None:
    """Keys and values of one token over all layers: by the projections that make them, else by the configuration."""
    made = [tensor for tensor in checkpoint.tensors if _KEYS.search(tensor.name) and not _SEES.search(tensor.name)]
    if made and not held_quantization(checkpoint.config):
        return sum(tensor.shape[0] for tensor in made)
    return _told_per_token(text_part(checkpoint.config))


def _told_per_token(text: Mapping[str, Any]) -> int | None:
    layers = number(text, "num_hidden_layers", "n_layer", "num_layers")
    heads = number(text, "num_attention_heads", "n_head", "num_heads")
    width = number(text, "hidden_size", "n_embd", "d_model")
    if layers is None or heads is None or width is None:
        return None
    if number(text, "kv_lora_rank"):
        depths: Sequence[int | None] = [
            number(text, key) for key in ("qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim")
        ]
        return layers * heads * sum(depth or 0 for depth in depths)
    depth = number(text, "head_dim") or width // heads
    return 2 * layers * (number(text, "num_key_value_heads", "num_kv_heads") or heads) * depth
