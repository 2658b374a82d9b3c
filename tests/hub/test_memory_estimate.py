"""Estimates from headers against the engine's allocations, tensor by tensor."""

import ctypes
import json
import math
import struct
import subprocess
import sys
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    GPT2Config,
    LlamaConfig,
    MixtralConfig,
    PreTrainedConfig,
    PreTrainedModel,
    Qwen3Config,
)

from millm.engine.kv_cache import CacheWindow, SlotCache
from millm.engine.messages import LoadModel, Quantization
from millm.engine.model_loader import load_model, pack_int8
from millm.engine.model_runner import _round_up_columns
from millm.engine.quantization import Int8Linear
from millm.hub import memory_estimate
from millm.hub.checkpoint import TensorHeader as Header
from millm.hub.entries import SaeEntry
from millm.hub.memory_estimate import Checkpoint, Estimate, estimate
from millm.sae.autoencoder import SparseAutoencoder
from millm.sae.formats import canonicalise
from millm.sae.steering_hook import SteeringHook
from tests.fixtures.tiny import write_sae

ROOT = Path(__file__).parents[2]
IDS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
SIZE = {"vocab_size": 512, "hidden_size": 256, "num_hidden_layers": 2, "max_position_embeddings": 512, **IDS}
HEADS = {"intermediate_size": 512, "num_attention_heads": 4, "num_key_value_heads": 2}
MODELS: dict[str, PreTrainedConfig] = {
    "llama": LlamaConfig(**SIZE, **HEADS, tie_word_embeddings=False),
    "gemma2": Gemma2Config(**SIZE, **HEADS, head_dim=32, sliding_window=8),
    "gpt2": GPT2Config(vocab_size=512, n_embd=256, n_layer=2, n_head=4, n_positions=512, **IDS),
    "mixtral": MixtralConfig(**SIZE, **HEADS, num_local_experts=4),
    "qwen3": Qwen3Config(**SIZE, **HEADS, head_dim=32, tie_word_embeddings=True),
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    paths = {}
    for name, config in MODELS.items():
        torch.manual_seed(0)
        paths[name] = tmp_path_factory.mktemp("models") / name
        AutoModelForCausalLM.from_config(deepcopy(config)).to(torch.bfloat16).save_pretrained(paths[name])
    return paths


def loaded(folder: Path, quantization: Quantization, dtype: str, cpu_int8: bool = True) -> PreTrainedModel:
    command = LoadModel(
        id="1",
        path=str(folder),
        device="cpu",
        dtype=dtype,
        quantization=quantization,
        cpu_int8=cpu_int8,  # type: ignore[arg-type]
    )
    model = load_model(command, lambda *_: None)
    pack_int8(model, command, lambda *_: None)
    return model


def resident_bytes(model: nn.Module) -> int:
    """Bytes of all weights; buffers that configurations define are left out."""
    return sum(tensor.nbytes for tensor in _tensors(model))


def _tensors(model: nn.Module) -> Iterator[Tensor]:
    for parameter in model.parameters():
        yield parameter
        state = getattr(parameter, "quant_state", None)
        if state is not None:
            yield from (state.absmax, state.code)
        if getattr(parameter, "SCB", None) is not None:
            yield parameter.SCB
    for module in model.modules():
        if isinstance(module, Int8Linear):
            yield from _packed(module)


def _packed(module: Int8Linear) -> Iterator[Tensor]:
    """fbgemm's layout: inputs padded to a block of 512, and a scale, a zero point and a sum per output."""
    weight = torch.ops.quantized.linear_unpack(module._packed)[0]
    yield nn.functional.pad(weight.int_repr(), (0, -weight.shape[1] % 512 if weight.nbytes < 2**25 else 0))
    yield weight.q_per_channel_scales().float()
    yield weight.q_per_channel_zero_points().int()
    yield torch.zeros(len(weight), dtype=torch.int32)


def close(estimated: int | None, actual: int) -> bool:
    return estimated is not None and math.isclose(estimated, actual, rel_tol=0.02)


@pytest.mark.parametrize("dtype", ["auto", "float32", "bfloat16"])
@pytest.mark.parametrize("quantization", ["none", "8bit", "4bit"])
@pytest.mark.parametrize("name", MODELS)
def test_weights_match_the_loaded_model(
    name: str, quantization: Quantization, dtype: str, folders: dict[str, Path]
) -> None:
    result = estimate(folders[name], name=name, device="cpu", quantization=quantization, dtype=dtype)
    model = loaded(folders[name], quantization, dtype)
    assert close(result.weights, resident_bytes(model)), (result.weights, resident_bytes(model))
    assert result.dtype == str(model.dtype).removeprefix("torch.")


def test_unpacked_weights_match_the_loaded_model(folders: dict[str, Path]) -> None:
    result = estimate(folders["llama"], name="llama", device="cpu", cpu_int8=False)
    assert close(result.weights, resident_bytes(loaded(folders["llama"], "none", "auto", cpu_int8=False)))
    assert result.while_loading is None
    assert estimate(folders["llama"], name="llama", device="cpu").while_loading == result.weights


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("context", [100, 300, 512])
def test_kv_cache_matches_the_allocation(name: str, context: int, folders: dict[str, Path]) -> None:
    result = estimate(folders[name], name=name, device="cpu", context=context, slots=3)
    model = loaded(folders[name], "none", "auto", cpu_int8=False)
    cache = SlotCache(model.config.num_hidden_layers, 1, _round_up_columns(context, 512))
    cache.window = CacheWindow(first_row=0, rows=1, columns=2, positions=torch.tensor([[0, 1]]), start_column=0)
    with torch.inference_mode():
        model(torch.tensor([[1, 2]]), past_key_values=cache.past_key_values, position_ids=cache.window.positions)
    assert result.kv_cache == sum(tensor.nbytes for tensor in cache._tensors())
    assert result.kv_cache_all == 3 * result.kv_cache
    assert result.context == context


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"architecture": "standard", "drop": ["threshold"]},
        {"architecture": "topk", "activation_fn": "topk", "k": 4, "drop": ["threshold"]},
    ],
)
def test_saes_match_the_attached_hooks(config: dict[str, object], tmp_path: Path) -> None:
    folder = write_sae(tmp_path / "sae", **{key: value for key, value in config.items() if key != "drop"})
    without_threshold(folder, bool(config))
    sae = SparseAutoencoder.open(canonicalise(folder, tmp_path / "canonical"))
    tap = SteeringHook(sae, torch.device("cpu"))
    if sae.config.k:
        sae.activations(torch.randn(1, sae.config.d_in))  # what watching or steering one of its features reads
    entry = SaeEntry(
        id="x", origin="hub", state="whole", size=1, d_in=sae.config.d_in, width=sae.config.d_sae,
        architecture=sae.config.architecture,
    )  # fmt: skip
    tensors = {tensor.data_ptr(): tensor for tensor in in_tap(tap)}
    result = estimate(Checkpoint({}, ()), name="x", device="cpu", saes=[entry])
    assert close(result.saes, sum(tensor.nbytes for tensor in tensors.values()))


def without_threshold(folder: Path, drop: bool) -> None:
    tensors = load_file(folder / "sae_weights.safetensors")
    if drop:
        del tensors["threshold"]
    save_file(tensors, folder / "sae_weights.safetensors")


def in_tap(tap: SteeringHook) -> Iterator[Tensor]:
    for owner in (tap, tap._bank, tap._bank.feature_rows):
        yield from (value for value in vars(owner).values() if isinstance(value, Tensor))
    yield from tap.sae._device_cache.values()


def test_sae_of_unknown_shape_counts_as_its_files() -> None:
    entry = SaeEntry(id="x", origin="hub", state="whole", size=12345)
    assert estimate(Checkpoint({}, ()), name="x", device="cpu", saes=[entry]).saes == 12345


# ---------------------------------------------------------------------------------------------------------- verdicts


def verdict(folder: Path, free: int | None, **changes: object) -> Estimate:
    options = {"name": "llama", "device": "cuda:0", "dtype": "auto", "slots": 4, "kv_share": 0.85, **changes}
    return estimate(folder, free=free, **options)  # type: ignore[arg-type]


def test_verdict_changes_at_the_exact_size(folders: dict[str, Path]) -> None:
    total = verdict(folders["llama"], None).total
    assert total is not None
    assert verdict(folders["llama"], total).verdict == "fits"
    short = verdict(folders["llama"], total - 1)
    assert (short.verdict, short.advice != "") == ("does_not_fit", True)
    assert verdict(folders["llama"], total - 1, evictable=1).verdict == "fits"


def test_advice_names_the_number_of_concurrent_sequences(folders: dict[str, Path]) -> None:
    total = verdict(folders["llama"], None).total
    assert total is not None
    assert "1 of 4 sequences of 512 tokens" in verdict(folders["llama"], total).advice
    assert verdict(folders["llama"], 2 * total).advice == ""


def test_peak_of_loading_may_exceed_the_weights(folders: dict[str, Path]) -> None:
    """On a CPU, float32 precedes int8."""
    result = estimate(folders["gpt2"], name="gpt2", device="cpu")
    assert result.weights is not None
    assert result.while_loading is not None
    assert result.while_loading > result.weights


def large(layers: int = 20, width: int = 4096) -> Checkpoint:
    """A model of gigabytes with headers only."""
    config = {
        "model_type": "llama", "hidden_size": width, "intermediate_size": 4 * width, "num_hidden_layers": layers,
        "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 32_000, "dtype": "bfloat16",
    }  # fmt: skip
    paths = [
        Header("model.embed_tokens.weight", "BF16", (32_000, width)),
        Header("lm_head.weight", "BF16", (32_000, width)),
    ]
    for layer in range(layers):
        attention, mlp = f"model.layers.{layer}.self_attn", f"model.layers.{layer}.mlp"
        paths += [Header(f"{attention}.{side}_proj.weight", "BF16", (width, width)) for side in "qo"]
        paths += [Header(f"{attention}.{side}_proj.weight", "BF16", (width // 4, width)) for side in "kv"]
        paths += [Header(f"{mlp}.{side}_proj.weight", "BF16", (4 * width, width)) for side in ("gate", "up")]
        paths += [Header(f"{mlp}.down_proj.weight", "BF16", (width, 4 * width))]
    return Checkpoint(config, tuple(paths))


def test_advice_makes_the_model_fit() -> None:
    """From the smallest change to the largest."""

    def result(free_gb: float, **changes: object) -> Estimate:
        return estimate(large(), name="x", device="cuda:0", free=int(free_gb * 1e9), **changes)  # type: ignore[arg-type]

    needs = result(100).total
    assert needs is not None
    long = result(needs / 1e9, context=200_000)
    assert (long.verdict, "shorter context" in long.advice) == ("does_not_fit", True)
    for free, bits in ((7.5, "8bit"), (4.5, "4bit")):
        assert f"quantization {bits}" in result(free).advice
        assert result(free, quantization=bits).verdict == "fits"
    assert "smaller model" in result(1).advice


def test_unknown_parts_give_verdict_unknown(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama"}))
    (tmp_path / "pytorch_model.bin").write_bytes(b"x")
    result = estimate(tmp_path, name="x", device="cpu", free=1)
    assert (result.verdict, result.weights, result.total) == ("unknown", None, None)
    (tmp_path / "model.safetensors").write_bytes(struct.pack("<Q", 10**9))
    assert estimate(tmp_path, name="x", device="cpu", free=1).verdict == "unknown"
    assert estimate(tmp_path / "nowhere", name="x", device="cpu", free=1).verdict == "unknown"


def test_weights_alone_may_not_fit() -> None:
    """For a model whose cache size is unknown."""
    known = Checkpoint({}, large().tensors)
    assert estimate(known, name="x", device="cuda:0", free=10**9).verdict == "does_not_fit"
    assert estimate(known, name="x", device="cuda:0", free=10**12).verdict == "unknown"


def test_kv_size_by_configuration_equals_that_by_projection() -> None:
    by_shape = large()
    fused = Checkpoint(by_shape.config, tuple(t for t in by_shape.tensors if "_proj" not in t.name))
    assert memory_estimate.kv_cache_bytes(fused, "bfloat16", 1000) == memory_estimate.kv_cache_bytes(
        by_shape, "bfloat16", 1000
    )


def test_quantised_checkpoint_counts_as_its_file() -> None:
    tensors = (Header("model.layers.0.mlp.up_proj.weight", "U8", (1000, 1)), Header("x.absmax", "F32", (10,)))
    held_so = Checkpoint({"quantization_config": {"load_in_4bit": True}}, tensors)
    assert memory_estimate.weight_bytes(held_so, "bfloat16", "none") == 1040


@pytest.mark.demo
def test_demo_model_matches_its_process(demo_folder: Path) -> None:
    """By the tensors, and by what a process of its own grows: another test's leavings would be taken for room."""
    result = estimate(demo_folder, name="demo", device="cpu")
    code = f"from pathlib import Path; from {__name__} import measure; measure(Path({str(demo_folder)!r}))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    tensors, mapped, grown = json.loads(done.stdout.splitlines()[-1])
    assert result.weights is not None
    assert close(result.weights, tensors)
    assert math.isclose(grown + mapped, result.weights, rel_tol=0.1)


def measure(folder: Path) -> None:
    """Print bytes: of the tensors, of the float32 file that they are mapped from, and what loading them took."""
    before = anonymous()
    model = loaded(folder, "none", "auto")
    grown = anonymous() - before
    sys.stdout.write(json.dumps([resident_bytes(model), model.get_input_embeddings().weight.nbytes, grown]))


def anonymous() -> int:
    """Bytes of this process without a file behind them, after malloc has returned its free memory."""
    ctypes.CDLL(None).malloc_trim(0)
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("RssAnon"))
