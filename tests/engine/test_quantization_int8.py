"""int8 layers on a CPU: close to float32, exact integer sums, rows independent of each other."""

import gc
import math
import os
import subprocess
import sys
import weakref
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MambaConfig,
    PreTrainedConfig,
    PreTrainedModel,
)

from millm.engine.messages import LoadModel
from millm.engine.model_loader import load_model, pack_int8
from millm.engine.quantization import Int8Linear, Int8Report, int8_linears
from tests.engine.conftest import described
from tests.fixtures.tiny import write_model

IN, OUT = 320, 192
LLAMA = LlamaConfig(
    vocab_size=512, hidden_size=256, intermediate_size=512, num_hidden_layers=2, num_attention_heads=4,
    num_key_value_heads=1, max_position_embeddings=128, tie_word_embeddings=True, pad_token_id=0,
)  # fmt: skip


@pytest.fixture(scope="module")
def weight() -> Tensor:
    return torch.randn(OUT, IN, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def bias() -> Tensor:
    return torch.randn(OUT, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def layer(weight: Tensor, bias: Tensor) -> Int8Linear:
    return Int8Linear(weight, bias, replaced_count=0)


def rows(*shape: int) -> Tensor:
    """With one large feature, as residual streams have."""
    x = torch.randn(*shape, IN, generator=torch.Generator().manual_seed(2))
    x[..., 7] *= 30
    return x


def random_model(config: PreTrainedConfig) -> PreTrainedModel:
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config).eval()


def quiet(stage: str, done: int, total: int) -> None:
    pass


def test_output_is_the_product_with_its_weights(layer: Int8Linear, weight: Tensor, bias: Tensor) -> None:
    """Weights are off by at most half a step; inputs have 13 bits."""
    step = weight.abs().amax(1, keepdim=True) / 127
    assert bool(((layer.weight - weight).abs() <= step * 0.5001).all())
    x = rows(50)
    exact = x.double() @ layer.weight.double().T + bias
    finest = x.abs().amax(-1, keepdim=True) / (63 * 128)
    bound = 0.51 * finest * layer.weight.abs().sum(1) + 1e-4
    assert bool(((layer(x) - exact).abs() <= bound).all())


@pytest.mark.parametrize("size", [0.001, 1.0, 1000.0])
def test_row_is_independent_of_its_batch(layer: Int8Linear, size: float) -> None:
    """Bit-identical beside any other rows."""
    x = rows(1)
    alone = layer(x)
    for others in (1, 2, 7, 40):
        batch = torch.cat([rows(others) * size, x, rows(others) * 1000])
        assert torch.equal(layer(batch)[others], alone[0])


def test_chunked_prompt_matches_the_full_prompt(layer: Int8Linear) -> None:
    x = rows(2, 33)
    chunks = torch.cat([layer(chunk) for chunk in x.split([1, 5, 16, 11], dim=1)], dim=1)
    assert torch.equal(layer(x), chunks)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_non_finite_row_affects_only_itself(layer: Int8Linear, bad: float) -> None:
    x = rows(5)
    x[3, 11] = bad
    y = layer(x)
    assert not bool(y[3].isfinite().any())
    good = [0, 1, 2, 4]
    assert torch.equal(y[good], layer(rows(5))[good])
    assert bool(y[good].isfinite().all())


def test_zero_input_gives_the_bias(layer: Int8Linear, weight: Tensor, bias: Tensor) -> None:
    x = rows(3)
    x[1] = 0
    assert torch.equal(layer(x)[1], bias)
    assert torch.equal(Int8Linear(weight, None, replaced_count=0)(x)[1], torch.zeros(OUT))
    assert torch.equal(layer(x * 1e-42)[0].isfinite(), torch.ones(OUT, dtype=torch.bool))


def test_empty_batch(layer: Int8Linear) -> None:
    assert layer(torch.empty(0, IN)).shape == (0, OUT)
    assert layer(torch.empty(2, 0, IN)).shape == (2, 0, OUT)


def test_the_largest_sums_neither_saturate_nor_overflow() -> None:
    """Products as large as possible: a CPU without VNNI adds two of them in 16 bits."""
    for width in (64, 2**17):
        layer = Int8Linear(torch.ones(32, width), None, replaced_count=0)
        torch.testing.assert_close(layer(torch.ones(3, width)), torch.full((3, 32), float(width)))
        torch.testing.assert_close(layer(-torch.ones(3, width)), torch.full((3, 32), -float(width)))


def test_int8_tests_pass_without_vnni() -> None:
    """With fbgemm limited to AVX2, where a full 8-bit input saturates."""
    environment = {**os.environ, "FBGEMM_ENABLE_INSTRUCTIONS": "AVX2"}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", __file__, "-k", "not vnni"]
    root = Path(__file__).parents[2]
    ran = subprocess.run(command, env=environment, cwd=root, capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0, ran.stdout
    saturates = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", SATURATES], env=environment, capture_output=True, text=True, timeout=120
    )
    assert float(saturates.stdout) < 60, saturates.stderr


SATURATES = """
import torch
scales, zeros = torch.full((32,), 1 / 127), torch.zeros(32).long()
ones = torch.quantize_per_channel(torch.ones(32, 64), scales, zeros, 0, torch.qint8)
kernel = torch.ops.quantized.linear_with_input_q_dq_qweight_dq_output_fp32
print(kernel(torch.ones(1, 64), 1 / 127, 128, torch.ops.quantized.linear_prepack(ones, None))[0, 0].item())
"""
"""Prints 64 without saturation: proof that the environment variable above has an effect."""


def test_large_layers_are_replaced_and_freed() -> None:
    model = random_model(LLAMA)
    ids = torch.arange(40)[None] + 3
    before = model(ids).logits.detach()
    parameters = described(model).parameters
    first = weakref.ref(model.model.layers[0].mlp.up_proj.weight)
    seen: list[tuple[str, int, int]] = []

    report = int8_linears(model, lambda *step: seen.append(step))

    assert report == Int8Report(2 * 5 + 1)  # k and v are too small to gain: 256 × 64 weights
    assert seen[-1] == ("packing weights", 11, 11)
    assert type(model.model.layers[0].self_attn.k_proj) is nn.Linear
    assert isinstance(model.lm_head, Int8Linear)
    gc.collect()
    assert first() is None
    after = model(ids).logits.detach()
    assert float((after - before).norm() / before.norm()) < 0.02
    assert not torch.equal(after, before)
    assert described(model).weights == "int8 on CPU (rows scaled apart)"
    assert described(model).parameters == parameters


@pytest.mark.parametrize(
    "config",
    [
        GPT2Config(vocab_size=512, n_embd=256, n_layer=2, n_head=4, n_positions=64, bos_token_id=1, eos_token_id=2),
        MambaConfig(vocab_size=512, hidden_size=256, num_hidden_layers=2, state_size=8),
    ],
    ids=["gpt2", "mamba"],
)
def test_other_families_are_converted(config: PreTrainedConfig) -> None:
    """GPT-2 stores weights transposed; Mamba reads a layer's weights in its forward pass."""
    model = random_model(config)
    ids = torch.arange(20)[None] + 3
    with torch.inference_mode():
        before = model(ids).logits
        assert int8_linears(model, quiet).converted_layers >= 4
        after = model(ids).logits
    assert float((after - before).norm() / before.norm()) < 0.05


def test_conv1d_matches_the_transposed_linear_layer() -> None:
    model = random_model(GPT2Config(vocab_size=64, n_embd=256, n_layer=1, n_head=4, n_positions=32))
    assert isinstance(model, GPT2LMHeadModel)
    layer = model.transformer.h[0].mlp.c_fc
    weight, bias = layer.weight.detach().clone(), layer.bias.detach().clone()
    int8_linears(model, quiet)
    x = torch.randn(3, 256, generator=torch.Generator().manual_seed(3))
    torch.testing.assert_close(model.transformer.h[0].mlp.c_fc(x), x @ weight + bias, rtol=0.05, atol=0.02)


def test_unconverted_model_reports_the_reason(tiny_model: Path) -> None:
    half = random_model(LLAMA).to(torch.bfloat16)
    assert int8_linears(half, quiet) == Int8Report(0, "the weights are not float32")
    tiny = LlamaForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    assert int8_linears(tiny, quiet) == Int8Report(0, "no linear layer has 65,536 weights")


def test_model_is_converted_only_if_requested(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "model")
    random_model(LLAMA).save_pretrained(folder)
    weights = {}
    for cpu_int8, dtype in ((True, "auto"), (False, "auto"), (True, "bfloat16"), (True, "float32")):
        command = LoadModel(id="load", path=str(folder), device="cpu", dtype=dtype, cpu_int8=cpu_int8)
        model = load_model(command, quiet)
        pack_int8(model, command, quiet)
        weights[cpu_int8, dtype] = described(model).weights
    assert list(weights.values()) == ["int8 on CPU (rows scaled apart)", "float32", "bfloat16", "float32"]
