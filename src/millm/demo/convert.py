"""Turn a Llama GGUF file into an ordinary Hugging Face folder: the same numbers, float32, the usual names.

float32 because Q4_1 is scale × level + minimum with float16 scales: of SmolLM2-135M's values 79 % do not fit
bfloat16 and 42 % do not fit float16, and the demo's SAE was trained on the unrounded ones.
"""

import json
import math
import re
import struct
from pathlib import Path
from typing import Any

from millm.demo.gguf import FloatArray, GgufFile, GgufTensor
from millm.demo.progress import OnProgress
from millm.demo.tokenizer import write_tokenizer
from millm.errors import InvalidModel

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
