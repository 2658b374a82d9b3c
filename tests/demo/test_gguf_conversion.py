"""The converted folder against transformers' own conversion of the same GGUF file."""

import json
import struct
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from transformers import AutoModelForCausalLM

from millm.demo.gguf import convert_gguf, hugging_face_name, read_gguf
from millm.errors import InvalidModel
from tests.demo.conftest import HEADS, INNER, KV_HEADS, LAYERS, WIDTH, quiet


def permuted(weights: np.ndarray, heads: int) -> np.ndarray:
    """llama.cpp's `LlamaModel.permute`, forwards."""
    halves = weights.reshape(heads, 2, weights.shape[0] // heads // 2, *weights.shape[1:])
    return halves.swapaxes(1, 2).reshape(weights.shape)


@pytest.fixture(scope="module")
def converted(tiny_gguf: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("converted")
    convert_gguf(read_gguf(tiny_gguf), folder, quiet)
    return folder


def test_tiny_model_has_the_same_values(converted: Path, tiny_gguf: Path) -> None:
    ours = load_file(converted / "model.safetensors")
    heads = {"attn_q": HEADS, "attn_k": KV_HEADS}
    for tensor in gguf.GGUFReader(tiny_gguf).tensors:
        expected = gguf.dequantize(tensor.data, tensor.tensor_type)
        mine = ours.pop(hugging_face_name(tensor.name))
        kind = tensor.name.split(".")[-2]
        np.testing.assert_array_equal(permuted(mine, heads[kind]) if kind in heads else mine, expected)
    assert ours == {}


def test_tiny_model_runs(converted: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(converted)
    config = model.config
    assert model.dtype == torch.float32
    assert (config.hidden_size, config.intermediate_size, config.num_hidden_layers) == (WIDTH, INNER, LAYERS)
    assert model(torch.arange(5)[None]).logits.isfinite().all()


def test_header_is_aligned(converted: Path) -> None:
    with (converted / "model.safetensors").open("rb") as file:
        assert struct.unpack("<Q", file.read(8))[0] % 8 == 0


def test_progress_counts_the_bytes_of_the_weights(tiny_gguf: Path, tmp_path: Path) -> None:
    seen: list[tuple[str, int, int]] = []
    convert_gguf(read_gguf(tiny_gguf), tmp_path, lambda *step: seen.append(step))
    done = [step[1] for step in seen]
    total = sum(values.nbytes for values in load_file(tmp_path / "model.safetensors").values())
    assert done == sorted(done)
    assert (seen[0], seen[-1]) == (("convert", 0, total), ("convert", total, total))


def test_unknown_tensor_is_rejected() -> None:
    with pytest.raises(InvalidModel, match=r"blk\.3\.attn_rot"):
        hugging_face_name("blk.3.attn_rot.weight")


# --------------------------------------------------------------------------------------------------- the real model


@pytest.fixture(scope="module")
def of_transformers(demo_gguf: Path) -> Any:
    """The oracle: transformers' own loader of GGUF files."""
    return AutoModelForCausalLM.from_pretrained(demo_gguf.parent, gguf_file=demo_gguf.name, dtype=torch.float32)


@pytest.fixture(scope="module")
def of_ours(demo_folder: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(demo_folder)


@pytest.mark.demo
def test_tensors_match_transformers(of_ours: Any, of_transformers: Any) -> None:
    ours, theirs = of_ours.state_dict(), of_transformers.state_dict()
    assert ours.keys() == theirs.keys()
    different = [name for name in ours if not torch.equal(ours[name], theirs[name])]
    assert different == []


@pytest.mark.demo
def test_logits_match_transformers(of_ours: Any, of_transformers: Any) -> None:
    ids = torch.tensor([[1, 4093, 198, 31530, 549, 563, 260, 3426, 30, 2, 198, 1, 520, 9531, 198]])
    with torch.inference_mode():
        assert torch.equal(of_ours(ids).logits, of_transformers(ids).logits)


@pytest.mark.demo
def test_configuration_matches_the_metadata(demo_folder: Path, demo_gguf: Path) -> None:
    config = json.loads((demo_folder / "config.json").read_text("utf-8"))
    facts = read_gguf(demo_gguf).metadata
    for ours, theirs in {
        "hidden_size": "llama.embedding_length",
        "intermediate_size": "llama.feed_forward_length",
        "num_hidden_layers": "llama.block_count",
        "num_attention_heads": "llama.attention.head_count",
        "num_key_value_heads": "llama.attention.head_count_kv",
        "max_position_embeddings": "llama.context_length",
        "head_dim": "llama.rope.dimension_count",
        "rope_theta": "llama.rope.freq_base",
        "vocab_size": "llama.vocab_size",
        "bos_token_id": "tokenizer.ggml.bos_token_id",
        "eos_token_id": "tokenizer.ggml.eos_token_id",
        "pad_token_id": "tokenizer.ggml.padding_token_id",
    }.items():
        assert config[ours] == facts[theirs], ours
    assert np.float32(config["rms_norm_eps"]) == np.float32(facts["llama.attention.layer_norm_rms_epsilon"])
    assert config["tie_word_embeddings"] is True
    assert config["dtype"] == "float32"
    assert config["hidden_act"] == "silu"


@pytest.mark.demo
def test_configuration_matches_transformers(of_ours: Any, of_transformers: Any) -> None:
    """Including the rotary base, which transformers 5 stores under another key."""
    ours, theirs = of_ours.config.to_dict(), of_transformers.config.to_dict()
    incidental = {"_name_or_path", "_model_name_or_path", "architectures", "initializer_range", "quantization_config"}
    theirs["rms_norm_eps"] = float(f"{theirs['rms_norm_eps']:.6g}")
    differing = {key for key in ours.keys() | theirs.keys() if ours.get(key) != theirs.get(key)}
    assert differing - incidental <= {"unk_token_id"}


@pytest.mark.demo
def test_most_values_need_float32(of_ours: Any) -> None:
    """The reason for 540 MB: bfloat16 or float16 would change the model that the SAE was trained on."""
    for half, share in ((torch.bfloat16, 0.79), (torch.float16, 0.42)):
        changed = sum((values.to(half).float() != values).sum().item() for values in of_ours.parameters())
        assert changed / sum(values.numel() for values in of_ours.parameters()) == pytest.approx(share, abs=0.01)
