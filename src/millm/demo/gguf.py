"""Read a GGUF file: its metadata, its tensor table, and its Q4_1, Q8_0, F16 and F32 tensors as float32.

Only what the demo's weights need; GGUF is not a format miLLM supports elsewhere. The layout is that of
https://github.com/ggml-org/ggml/blob/master/docs/gguf.md (version 3, little-endian).

The tokenizer inside a GGUF file as the files Hugging Face libraries read; a byte-level BPE, nothing else.

llama.cpp's pre-tokenizer `smollm` stands for: digits one by one, then GPT-2's byte level, as in
https://huggingface.co/HuggingFaceTB/SmolLM2-135M-Instruct/blob/main/tokenizer.json

Turn a Llama GGUF file into an ordinary Hugging Face folder: the same numbers, float32, the usual names.

float32 because Q4_1 is scale × level + minimum with float16 scales: of SmolLM2-135M's values 79 % do not fit
bfloat16 and 42 % do not fit float16, and the demo's SAE was trained on the unrounded ones.
"""

import json
import math
import mmap
import re
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from millm.demo.bundle import OnProgress
from millm.errors import InvalidModel

FloatArray = npt.NDArray[np.float32]
ByteArray = npt.NDArray[np.uint8]
BLOCK_SIZE = 32
"""Values per quantised block."""
_SCALAR_DTYPES = {
    0: "<u1",
    1: "<i1",
    2: "<u2",
    3: "<i2",
    4: "<u4",
    5: "<i4",
    6: "<f4",
    7: "?",
    10: "<u8",
    11: "<i8",
    12: "<f8",
}
_STRING_TYPE, _ARRAY_TYPE = 8, 9


@dataclass(frozen=True)
class TensorType:
    """How a tensor's values are packed: so many bytes hold so many values."""

    name: str
    block_values: int
    block_bytes: int
    unpack: Callable[[ByteArray], FloatArray]
    """[blocks, block_bytes] → [blocks, block_values]"""


def _unpack_q4_1(blocks: ByteArray) -> FloatArray:
    scale, minimum = blocks[:, 0:2].view("<f2"), blocks[:, 2:4].view("<f2")  # [blocks, 1] each
    packed = blocks[:, 4:]  # [blocks, 16]: value i in the low, value i + 16 in the high four bits
    levels = np.concatenate([packed & 0x0F, packed >> 4], axis=1).astype(np.float32)
    return scale.astype(np.float32) * levels + minimum.astype(np.float32)


def _unpack_q8_0(blocks: ByteArray) -> FloatArray:
    scale = blocks[:, 0:2].view("<f2")  # [blocks, 1]
    return scale.astype(np.float32) * blocks[:, 2:].view(np.int8).astype(np.float32)


_TENSOR_TYPES = {
    0: TensorType("F32", 1, 4, lambda blocks: blocks.view("<f4").astype(np.float32)),
    1: TensorType("F16", 1, 2, lambda blocks: blocks.view("<f2").astype(np.float32)),
    3: TensorType("Q4_1", BLOCK_SIZE, 2 + 2 + BLOCK_SIZE // 2, _unpack_q4_1),
    8: TensorType("Q8_0", BLOCK_SIZE, 2 + BLOCK_SIZE, _unpack_q8_0),
}


@dataclass(frozen=True)
class GgufTensor:
    """A row of the tensor table; `values()` unpacks it."""

    name: str
    shape: tuple[int, ...]
    type: TensorType
    packed: ByteArray

    def values(self) -> FloatArray:
        """The tensor in float32: scale × level (+ minimum), computed as such; outermost dimension first."""
        return self.type.unpack(self.packed.reshape(-1, self.type.block_bytes)).reshape(self.shape)


@dataclass(frozen=True)
class GgufFile:
    """An open GGUF file: tensors are views of the mapped file until their values are asked for."""

    metadata: dict[str, Any]
    tensors: tuple[GgufTensor, ...]


def read_gguf(path: Path) -> GgufFile:
    """Read the header of a GGUF file. Raises InvalidModel for anything that cannot be read exactly."""
    with path.open("rb") as file:
        try:
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except ValueError as empty:
            raise InvalidModel(f"{path.name} is empty, not a GGUF file") from empty
    cursor = _Cursor(data)
    try:
        return _read_contents(cursor, path.name)
    except (struct.error, ValueError, ArithmeticError) as error:
        raise InvalidModel(f"{path.name} is damaged or cut short near byte {cursor.position}: {error}") from error


def _read_contents(cursor: "_Cursor", name: str) -> GgufFile:
    magic, version, tensor_count, metadata_count = cursor.unpack("<4sIQQ")
    if magic != b"GGUF":
        raise InvalidModel(f"{name} is not a GGUF file: it starts with {magic!r} instead of b'GGUF'")
    if version != 3:
        raise InvalidModel(f"{name} is GGUF version {version}; only version 3 (little-endian) can be read")
    metadata = {}
    for _ in range(metadata_count):
        key = cursor.string()
        metadata[key] = cursor.value(*cursor.unpack("<I"))
    rows = [_read_tensor_row(cursor, name) for _ in range(tensor_count)]
    alignment = _read_int(metadata, "general.alignment", 32)
    start = -(-cursor.position // alignment) * alignment
    return GgufFile(metadata, tuple(_view_tensor(cursor, row, start) for row in rows))


def _read_int(metadata: dict[str, Any], key: str, default: int) -> int:
    value = metadata.get(key, default)
    if not isinstance(value, int):
        raise ValueError(f"{key} is {value!r}, not a whole number")
    return value


_TensorRow = tuple[str, tuple[int, ...], TensorType, int]


def _read_tensor_row(cursor: "_Cursor", name: str) -> _TensorRow:
    tensor = cursor.string()
    (dimensions,) = cursor.unpack("<I")
    shape = cursor.unpack(f"<{dimensions}Q")[::-1]
    code, offset = cursor.unpack("<IQ")
    if code not in _TENSOR_TYPES:
        known = ", ".join(kind.name for kind in _TENSOR_TYPES.values())
        raise InvalidModel(f"{name}: tensor {tensor!r} has GGML type {code}; only {known} can be read")
    return tensor, shape, _TENSOR_TYPES[code], offset


def _view_tensor(cursor: "_Cursor", row: _TensorRow, start: int) -> GgufTensor:
    name, shape, kind, offset = row
    if shape and shape[-1] % kind.block_values:
        raise ValueError(
            f"rows of {shape[-1]} values of tensor {name!r} do not divide into blocks of {kind.block_values}"
        )
    size = math.prod(shape) // kind.block_values * kind.block_bytes
    cursor.position = start + offset
    return GgufTensor(name, shape, kind, cursor.array("<u1", size))


class _Cursor:
    """A place in the file that moves as values are read; past the end: ValueError or struct.error."""

    def __init__(self, data: mmap.mmap) -> None:
        self.data = data
        self.position = 0

    def unpack(self, layout: str) -> tuple[Any, ...]:
        values = struct.unpack_from(layout, self.data, self.position)
        self.position += struct.calcsize(layout)
        return values

    def array(self, dtype: str, count: int) -> npt.NDArray[Any]:
        values = np.frombuffer(self.data, dtype, count, self.position)
        self.position += values.nbytes
        return values

    def string(self) -> str:
        (length,) = struct.unpack_from("<Q", self.data, self.position)
        start, self.position = self.position + 8, self.position + 8 + length
        if self.position > len(self.data):
            raise ValueError(f"a text of {length} bytes does not fit")
        return str(self.data[start : self.position], "utf-8")

    def value(self, kind: int) -> Any:
        if kind == _STRING_TYPE:
            return self.string()
        if kind == _ARRAY_TYPE:
            element, count = self.unpack("<IQ")
            if element == _STRING_TYPE:
                return [self.string() for _ in range(count)]
            return self.array(_scalar_dtype(element), count).tolist()
        return self.array(_scalar_dtype(kind), 1).item()


def _scalar_dtype(kind: int) -> str:
    if kind not in _SCALAR_DTYPES:
        raise ValueError(f"metadata of type {kind} is not known")
    return _SCALAR_DTYPES[kind]


_CONTROL_TOKEN_TYPE = 3
"""llama.cpp's token type for tokens with a meaning to the model rather than a text."""


def write_tokenizer(metadata: dict[str, Any], folder: Path) -> None:
    """Write tokenizer.json, tokenizer_config.json and, where the file has one, chat_template.jinja."""
    build_tokenizer(metadata).save(str(folder / "tokenizer.json"))
    _write_text(folder / "tokenizer_config.json", json.dumps(_tokenizer_config(metadata), indent=2) + "\n")
    template = metadata.get("tokenizer.chat_template")
    if template is not None:
        _write_text(folder / "chat_template.jinja", template)


def build_tokenizer(metadata: dict[str, Any]) -> Tokenizer:
    """The tokenizer of a GGUF's metadata. Raises InvalidModel for any kind but SmolLM's byte-level BPE."""
    kind = (metadata.get("tokenizer.ggml.model"), metadata.get("tokenizer.ggml.pre"))
    if kind != ("gpt2", "smollm"):
        raise InvalidModel(f"the GGUF file's tokenizer is {kind}; only ('gpt2', 'smollm') can be read")
    tokens: list[str] = metadata["tokenizer.ggml.tokens"]
    merges = [tuple(merge.split(" ")) for merge in metadata["tokenizer.ggml.merges"]]
    tokenizer = Tokenizer(models.BPE({token: index for index, token in enumerate(tokens)}, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    control = zip(tokens, metadata["tokenizer.ggml.token_type"], strict=True)
    tokenizer.add_special_tokens(
        [AddedToken(token, special=True, normalized=False) for token, kind in control if kind == _CONTROL_TOKEN_TYPE]
    )
    return tokenizer


def _tokenizer_config(metadata: dict[str, Any]) -> dict[str, Any]:
    tokens: list[str] = metadata["tokenizer.ggml.tokens"]
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": metadata["llama.context_length"],
        "clean_up_tokenization_spaces": False,
        "bos_token": tokens[metadata["tokenizer.ggml.bos_token_id"]],
        "eos_token": tokens[metadata["tokenizer.ggml.eos_token_id"]],
        "pad_token": tokens[metadata["tokenizer.ggml.padding_token_id"]],
        "unk_token": tokens[metadata["tokenizer.ggml.unknown_token_id"]],
    }


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


_MODULE_NAMES = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


def convert_gguf(model: GgufFile, folder: Path, on_progress: OnProgress) -> None:
    """Write config.json, generation_config.json, model.safetensors and the tokenizer. Raises InvalidModel."""
    configuration = _model_config(model)
    _write_json(folder / "config.json", configuration)
    _write_json(folder / "generation_config.json", _token_ids(model.metadata))
    write_tokenizer(model.metadata, folder)
    heads = {"q_proj": configuration["num_attention_heads"], "k_proj": configuration["num_key_value_heads"]}
    _write_tensors(model.tensors, heads, folder / "model.safetensors", on_progress)


def _model_config(model: GgufFile) -> dict[str, Any]:
    facts = model.metadata
    if facts.get("general.architecture") != "llama":
        raise InvalidModel(f"the GGUF file holds a {facts.get('general.architecture')!r} model, not a 'llama'")
    width, heads = facts["llama.embedding_length"], facts["llama.attention.head_count"]
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "attention_bias": False,
        "attention_dropout": 0.0,
        **_token_ids(facts),
        "dtype": "float32",
        "head_dim": width // heads,
        "hidden_act": "silu",
        "hidden_size": width,
        "initializer_range": 1 / math.sqrt(width),
        "intermediate_size": facts["llama.feed_forward_length"],
        "max_position_embeddings": facts["llama.context_length"],
        "mlp_bias": False,
        "num_attention_heads": heads,
        "num_hidden_layers": facts["llama.block_count"],
        "num_key_value_heads": facts["llama.attention.head_count_kv"],
        "rms_norm_eps": _round_float32(facts["llama.attention.layer_norm_rms_epsilon"]),
        "rope_theta": facts["llama.rope.freq_base"],
        "tie_word_embeddings": all(tensor.name != "output.weight" for tensor in model.tensors),
        "vocab_size": facts["llama.vocab_size"],
    }


def _token_ids(metadata: dict[str, Any]) -> dict[str, int]:
    return {
        "bos_token_id": metadata["tokenizer.ggml.bos_token_id"],
        "eos_token_id": metadata["tokenizer.ggml.eos_token_id"],
        "pad_token_id": metadata["tokenizer.ggml.padding_token_id"],
    }


def _round_float32(value: float) -> float:
    """1e-05 rather than the 9.999999747378752e-06 that a float32 makes of it."""
    return float(f"{value:.6g}")


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _write_tensors(tensors: tuple[GgufTensor, ...], heads: dict[str, int], path: Path, on_progress: OnProgress) -> None:
    """One tensor in memory at a time; the format is eight bytes of length, a JSON table, then the values.

    https://github.com/huggingface/safetensors#format
    """
    table, total = _safetensors_header(tensors)
    header = json.dumps(table, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    done = 0
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(header)) + header)
        for tensor in tensors:
            on_progress("convert", done, total)
            done += file.write(_tensor_values(tensor, heads).tobytes())
    on_progress("convert", done, total)


def _safetensors_header(tensors: tuple[GgufTensor, ...]) -> tuple[dict[str, Any], int]:
    table: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for tensor in tensors:
        start, end = end, end + 4 * math.prod(tensor.shape)
        table[hugging_face_name(tensor.name)] = {
            "dtype": "F32",
            "shape": tensor.shape,
            "data_offsets": [start, end],
        }
    return table, end


def hugging_face_name(name: str) -> str:
    """`blk.3.attn_q.weight` → `model.layers.3.self_attn.q_proj.weight`; InvalidModel for an unknown name."""
    match = re.fullmatch(r"(?:blk\.(\d+)\.)?(\w+)\.weight", name)
    if match is None or match[2] not in _MODULE_NAMES:
        raise InvalidModel(f"the GGUF file has a tensor {name!r}, which this Llama converter does not know")
    prefix = "" if match[1] is None else f"model.layers.{match[1]}."
    return f"{prefix}{_MODULE_NAMES[match[2]]}.weight"


def _tensor_values(tensor: GgufTensor, heads: dict[str, int]) -> FloatArray:
    projection = hugging_face_name(tensor.name).split(".")[-2]
    values = tensor.values()
    return _unpermute(values, heads[projection]) if projection in heads else values


def _unpermute(values: FloatArray, heads: int) -> FloatArray:
    """Undo llama.cpp's order of rotary pairs: (0, 1, 2, …) interleaved there, halves here.

    The inverse of `LlamaModel.permute` in https://github.com/ggml-org/llama.cpp, convert_hf_to_gguf.py.
    """
    rows, columns = values.shape
    paired = values.reshape(heads, rows // heads // 2, 2, columns)
    return paired.swapaxes(1, 2).reshape(rows, columns)
