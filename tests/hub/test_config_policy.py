"""Configurations that would run foreign code are rejected; those of real models pass."""

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

from millm.errors import InvalidModel, MillmError, RemoteCodeRefused
from millm.hub import config_policy
from millm.hub.checkpoint import check_model_folder
from millm.hub.config_policy import known_model_types, needs_remote_code, screen_config
from millm.hub.memory_estimate import Checkpoint, estimate
from tests.engine.architectures import ARCHITECTURES
from tests.fixtures.hfcache import contents

AUTO_MAP = {"auto_map": {"AutoModelForCausalLM": "modeling_x.X"}}


def test_known_model_types_match_transformers() -> None:
    assert known_model_types() == frozenset(CONFIG_MAPPING_NAMES)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_real_configurations_pass(name: str) -> None:
    screen_config(json.loads(ARCHITECTURES[name].to_json_string(use_diff=False)))


@pytest.mark.parametrize(
    "harmless",
    [
        {"conv_kernel": 4, "use_mamba_kernels": True, "linear_conv_kernel_dim": 4},
        {"chunkwise_kernel": "chunkwise--native_autograd"},
        {"_attn_implementation_autoset": True, "_attn_implementation": "sdpa"},
        {"text_config": {"_attn_implementation": {"text": "eager"}}},
        {"quantization_config": {"load_in_8bit": True}},
        {"quantization_config": {"quant_method": "fp8"}},
        {"model_type": "phi3", **AUTO_MAP},
    ],
)
def test_harmless_settings_pass(harmless: dict[str, Any]) -> None:
    screen_config({"model_type": "llama", **harmless})


@pytest.mark.parametrize(
    "hostile",
    [
        {"model_type": "not_in_transformers", **AUTO_MAP},
        AUTO_MAP,
        {"model_type": "llama", "_attn_implementation_internal": "someone/kernel"},
        {"model_type": "llama", "attn_implementation": "paged|someone/kernel@main:fn"},
        {"model_type": "llama", "_experts_implementation": "someone/experts"},
        {"model_type": "llama", "kernel_config": {"kernel_mapping": {"RMSNorm": "someone/kernel:RMSNorm"}}},
        {"model_type": "llama", "text_config": {"sub": [{"_attn_implementation": "a/b"}]}},
        {"model_type": "llama", "custom_pipelines": {"x": {"impl": "pipe.X"}}},
    ],
)
def test_settings_with_code_are_rejected(hostile: dict[str, Any]) -> None:
    with pytest.raises(RemoteCodeRefused):
        screen_config(hostile)


def test_trusted_commit_may_use_its_own_code_only() -> None:
    screen_config({"model_type": "new", **AUTO_MAP}, is_trusted=True)
    with pytest.raises(RemoteCodeRefused):
        screen_config({"model_type": "new", **AUTO_MAP, "_attn_implementation": "a/b"}, is_trusted=True)


@pytest.mark.parametrize("method", ["quark", "evil", None, ["gptq"], {}])
def test_unknown_quantisations_are_rejected(method: object) -> None:
    with pytest.raises(InvalidModel, match="quantization_config"):
        screen_config({"model_type": "llama", "quantization_config": {"quant_method": method}})


def test_deep_nesting_is_rejected() -> None:
    config: dict[str, Any] = {}
    for _ in range(40):
        config = {"inner": config}
    with pytest.raises(InvalidModel, match="nested"):
        screen_config(config)


@pytest.mark.parametrize(
    "name",
    ["../x.safetensors", "/etc/passwd", "a/b.safetensors", "..", "x.bin", "", 3, "a\n.safetensors", "ä.safetensors"],
)
def test_shards_outside_the_folder_are_rejected(name: object) -> None:
    with pytest.raises(InvalidModel, match="names"):
        config_policy.shard_names(
            {"weight_map": {"a": "model-1.safetensors", "b": name}}, "model.safetensors.index.json"
        )


@pytest.mark.parametrize("table", [None, [], {}, "x"])
def test_index_without_table_is_rejected(table: object) -> None:
    with pytest.raises(InvalidModel, match="weight_map"):
        config_policy.shard_names({"weight_map": table}, "model.safetensors.index.json")


@pytest.mark.parametrize(
    ("name", "harm", "refusal"),
    [
        ("config.json", {"_attn_implementation": "a/b"}, RemoteCodeRefused),
        ("generation_config.json", {"custom_pipelines": {}}, RemoteCodeRefused),
        ("adapter_config.json", {}, InvalidModel),
    ],
)
def test_check_model_folder_applies_the_policy(
    name: str, harm: dict[str, Any], refusal: type[MillmError], tiny_model: Path, tmp_path: Path
) -> None:
    for path, content in contents(tiny_model).items():
        (tmp_path / path).write_bytes(content)
    check_model_folder(tmp_path)
    before = json.loads((tmp_path / name).read_bytes()) if (tmp_path / name).is_file() else {}
    (tmp_path / name).write_text(json.dumps({**before, **harm}))
    with pytest.raises(refusal):
        check_model_folder(tmp_path)


KEYS = st.sampled_from(
    ["model_type", "auto_map", "architectures", "quantization_config", "text_config", "torch_dtype", "dtype",
     "max_position_embeddings", "hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads",
     "head_dim", "vocab_size", "intermediate_size", "kv_lora_rank", "_attn_implementation", "tie_word_embeddings"]
)  # fmt: skip
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 2**70) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(KEYS, VALUES, max_size=8))
def test_arbitrary_configurations_raise_named_errors_only(config: dict[str, Any]) -> None:
    needs_remote_code(config)
    estimate(Checkpoint(config, ()), name="x", device="cpu")
    with contextlib.suppress(InvalidModel):
        screen_config(config)
