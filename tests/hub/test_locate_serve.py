"""`millm serve` with Hugging Face ids, and its message for a failed download."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from safetensors.numpy import load_file

from tests.cli.terminal import assert_refused, millm, ready_url, started
from tests.fixtures.fakehub import FakeHub, serving

MODEL = "tiny/llama"
SAE = "google/gemma-scope-2b-pt-res/layer_1/width_16k/average_l0_71"


@pytest.fixture
def hub(tiny_model: Path, tiny_sae: Path, tmp_path: Path) -> Iterator[FakeHub]:
    """The tiny model, and the tiny SAE in Gemma Scope's layout."""
    root = tmp_path / "hub"
    shutil.copytree(tiny_model, root / MODEL)
    (root / SAE).mkdir(parents=True)
    np.savez(root / SAE / "params.npz", **load_file(tiny_sae / "sae_weights.safetensors"))
    with serving(root) as running:
        yield running


def test_serve_downloads_model_and_sae(hub: FakeHub, tmp_path: Path) -> None:
    variables = hub.environment(tmp_path / "cache")
    serve = ("serve", MODEL, "--sae", SAE, "--allow-model-mismatch", "--port", "0")
    with started(*serve, home=tmp_path / "home", **variables) as process:
        url = ready_url(process)
        body = {
            "model": MODEL,
            "prompt": "The sea",
            "max_tokens": 3,
            "steering": {"features": [{"index": 3, "strength": 6}]},
        }
        answer = httpx.post(f"{url}/v1/completions", json=body, timeout=60, trust_env=False).raise_for_status().json()
    assert answer["millm"]["tokens_steered"] > 0
    assert f"{SAE}/params.npz" in hub.downloaded


def test_serve_reports_failed_downloads_in_one_line(hub: FakeHub, tmp_path: Path) -> None:
    hub.gated = {MODEL}
    ran = millm("serve", MODEL, "--port", "0", home=tmp_path / "home", **hub.environment(tmp_path / "cache"))
    assert_refused(ran, MODEL, "licence", "HF_TOKEN")
