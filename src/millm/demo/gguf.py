"""Convert the demo's Llama GGUF file to an ordinary Hugging Face folder: the same numbers in float32, the usual names.

float32 because Q4_1 is scale × level + minimum with float16 scales: of SmolLM2-135M's values 79 % do not fit
bfloat16 and 42 % do not fit float16, and the demo's SAE was trained on the unrounded ones.
"""

import json
import math
import re
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import numpy.typing as npt
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from millm.errors import InvalidModel
from millm.hub.home import OnProgress

FloatArray = npt.NDArray[np.float32]
_TENSOR_TYPES = ("F32", "F16", "Q4_1", "Q8_0")
_READ_ERRORS = (struct.error, ValueError, LookupError, TypeError, ArithmeticError, RecursionError)
"""Raised by the package for a damaged file."""


@dataclass(frozen=True)
class GgufFile:
    """An open GGUF file: tensors are views of the mapped file."""

    metadata: dict[str, Any]
    tensors: tuple[gguf.ReaderTensor, ...]


def read_gguf(path: Path) -> GgufFile:
    """Raises InvalidModel for a file that is not GGUF 3, is cut short, or holds a tensor of another type.

    Only for files whose hash has been verified: the package follows any count that a hostile header states.
    """
    with path.open("rb") as file:
        magic, version = file.read(4), file.read(4)
    if magic != b"GGUF":
        raise InvalidModel(f"{path.name} is {'not' if magic else 'empty, not'} a GGUF file: it starts with {magic!r}")
    try:
        if (number := struct.unpack("<I", version)[0]) != 3:
            raise InvalidModel(f"{path.name} is GGUF version {number}; only version 3 (little-endian) can be read")
        reader = gguf.GGUFReader(path)
        metadata = {name: field.contents() for name, field in reader.fields.items()}
    except _READ_ERRORS as error:
        raise InvalidModel(f"{path.name} is damaged or cut short: {error}") from error
    for tensor in reader.tensors:
        if tensor.tensor_type.name not in _TENSOR_TYPES:
            raise InvalidModel(
                f"{path.name}: tensor {tensor.name!r} has type {tensor.tensor_type.name}; only"
                f" {', '.join(_TENSOR_TYPES)} can be read"
            )
    return GgufFile(metadata, tuple(reader.tensors))


def tensor_shape(tensor: gguf.ReaderTensor) -> tuple[int, ...]:
    """Of the unpacked values, outermost dimension first."""
    return tuple(int(size) for size in reversed(tensor.shape))


def tensor_values(tensor: gguf.ReaderTensor) -> FloatArray:
    """The tensor unpacked to float32."""
    return gguf.dequantize(tensor.data, tensor.tensor_type).astype(np.float32, copy=False)


_CONTROL_TOKEN_TYPE = 3
"""llama.cpp's token type for tokens with a meaning to the model rather than a text."""


def write_tokenizer(metadata: dict[str, Any], folder: Path) -> None:
    """Write tokenizer.json, tokenizer_config.json and, where the file has one, chat_template.jinja."""
    build_tokenizer(metadata).save(str(folder / "tokenizer.json"))
    _write_json(folder / "tokenizer_config.json", _tokenizer_config(metadata))
    template = metadata.get("tokenizer.chat_template")
    if template is not None:
        (folder / "chat_template.jinja").write_text(template, encoding="utf-8")


def build_tokenizer(metadata: dict[str, Any]) -> Tokenizer:
    """The tokenizer of a GGUF's metadata. Raises InvalidModel for any kind but SmolLM's byte-level BPE.

    llama.cpp's pre-tokenizer `smollm` splits digits one by one, then applies GPT-2's byte level, as in
    https://huggingface.co/HuggingFaceTB/SmolLM2-135M-Instruct/blob/main/tokenizer.json
    """
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
    typed_tokens = zip(tokens, metadata["tokenizer.ggml.token_type"], strict=True)
    tokenizer.add_special_tokens(
        [
            AddedToken(token, special=True, normalized=False)
            for token, type in typed_tokens
            if type == _CONTROL_TOKEN_TYPE
        ]
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
    config = _model_config(model)
    _write_json(folder / "config.json", config)
    _write_json(folder / "generation_config.json", _token_ids(model.metadata))
    write_tokenizer(model.metadata, folder)
    heads = {"q_proj": config["num_attention_heads"], "k_proj": config["num_key_value_heads"]}
    _write_tensors(model.tensors, heads, folder / "model.safetensors", on_progress)


def _model_config(model: GgufFile) -> dict[str, Any]:
    metadata = model.metadata
    if metadata.get("general.architecture") != "llama":
        raise InvalidModel(f"the GGUF file holds a {metadata.get('general.architecture')!r} model, not a 'llama'")
    width, heads = metadata["llama.embedding_length"], metadata["llama.attention.head_count"]
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "attention_bias": False,
        "attention_dropout": 0.0,
        **_token_ids(metadata),
        "dtype": "float32",
        "head_dim": width // heads,
        "hidden_act": "silu",
        "hidden_size": width,
        "initializer_range": 1 / math.sqrt(width),
        "intermediate_size": metadata["llama.feed_forward_length"],
        "max_position_embeddings": metadata["llama.context_length"],
        "mlp_bias": False,
        "num_attention_heads": heads,
        "num_hidden_layers": metadata["llama.block_count"],
        "num_key_value_heads": metadata["llama.attention.head_count_kv"],
        # 1e-05 rather than the 9.999999747378752e-06 of its float32
        "rms_norm_eps": float(f"{metadata['llama.attention.layer_norm_rms_epsilon']:.6g}"),
        "rope_theta": metadata["llama.rope.freq_base"],
        "tie_word_embeddings": all(tensor.name != "output.weight" for tensor in model.tensors),
        "vocab_size": metadata["llama.vocab_size"],
    }


def _token_ids(metadata: dict[str, Any]) -> dict[str, int]:
    return {
        "bos_token_id": metadata["tokenizer.ggml.bos_token_id"],
        "eos_token_id": metadata["tokenizer.ggml.eos_token_id"],
        "pad_token_id": metadata["tokenizer.ggml.padding_token_id"],
    }


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _write_tensors(
    tensors: tuple[gguf.ReaderTensor, ...], heads: dict[str, int], path: Path, on_progress: OnProgress
) -> None:
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
            done += file.write(_converted_values(tensor, heads).tobytes())
    on_progress("convert", done, total)


def _safetensors_header(tensors: tuple[gguf.ReaderTensor, ...]) -> tuple[dict[str, Any], int]:
    table: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for tensor in tensors:
        start, end = end, end + 4 * tensor.n_elements
        table[hugging_face_name(tensor.name)] = {
            "dtype": "F32",
            "shape": tensor_shape(tensor),
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


def _converted_values(tensor: gguf.ReaderTensor, heads: dict[str, int]) -> FloatArray:
    projection = hugging_face_name(tensor.name).split(".")[-2]
    values = tensor_values(tensor)
    return _unpermute(values, heads[projection]) if projection in heads else values


def _unpermute(values: FloatArray, heads: int) -> FloatArray:
    """Undo llama.cpp's order of rotary pairs: (0, 1, 2, …) interleaved there, halves here.

    The inverse of `LlamaModel.permute` in https://github.com/ggml-org/llama.cpp, convert_hf_to_gguf.py.
    """
    rows, columns = values.shape
    paired = values.reshape(heads, rows // heads // 2, 2, columns)
    return paired.swapaxes(1, 2).reshape(rows, columns)
