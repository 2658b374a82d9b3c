"""`sample_every`: full reads stay within their share of the model's time, as measured."""

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import LlamaForCausalLM

from millm.sae import calibration
from millm.sae.autoencoder import SparseAutoencoder
from millm.sae.formats import canonicalise
from tests.fixtures.tiny import WIDTH

seconds = st.floats(1e-7, 100)


@given(read=seconds, step=seconds)
def test_sample_every_is_the_smallest_n_within_the_share(read: float, step: float) -> None:
    every = calibration.compute_sample_every(read, step)
    assert read / every <= calibration.MAX_TIME_SHARE * step * (1 + 1e-9)
    assert every == 1 or read / (every - 1) > calibration.MAX_TIME_SHARE * step * (1 - 1e-9)


@pytest.mark.parametrize(("read", "step", "every"), [(0.0, 1.0, 1), (0.025, 1.0, 1), (0.026, 1.0, 2), (0.5, 1.0, 20)])
def test_sample_every_examples(read: float, step: float, every: int) -> None:
    assert calibration.compute_sample_every(read, step) == every


@pytest.fixture(scope="module")
def sae(tiny_sae: Path, tmp_path_factory: pytest.TempPathFactory) -> SparseAutoencoder:
    return SparseAutoencoder.open(canonicalise(tiny_sae, tmp_path_factory.mktemp("canonical")))


@pytest.fixture(scope="module")
def model(tiny_model: Path) -> LlamaForCausalLM:
    return LlamaForCausalLM.from_pretrained(tiny_model, dtype=torch.float32).eval()


def test_measuring_needs_few_tokens_and_leaves_no_hooks(model: LlamaForCausalLM, sae: SparseAutoencoder) -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    assert calibration.measure_sample_every(model, sae, (1, 80, 81), torch.ones(2, WIDTH)) >= 1
    assert torch.equal(torch.get_rng_state(), before)
    assert all(weights.grad is None for weights in model.parameters())


class SlowSae(SparseAutoencoder):
    """As many times over as a dictionary that much wider would take."""

    def encode(self, x: torch.Tensor) -> torch.Tensor:
        for _ in range(400):
            super().encode(x)
        return super().encode(x)


def test_a_wider_dictionary_is_read_less_often(model: LlamaForCausalLM, sae: SparseAutoencoder) -> None:
    slow = SlowSae(sae.config, sae.sha256, sae._tensors)
    x = torch.ones(4, WIDTH)
    assert calibration.measure_sample_every(model, slow, (1, 80, 81), x) > 4 * calibration.measure_sample_every(
        model, sae, (1, 80, 81), x
    )
