"""The tiny model as a notebook has it, its SAEs by name, and the server beside it, which computes the same numbers."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import torch
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

from millm import SAE
from tests.fixtures.process import running
from tests.fixtures.tiny import write_sae


@pytest.fixture(autouse=True)
def home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where `SAE.load` keeps its copies."""
    folder = tmp_path_factory.mktemp("notebook-home")
    monkeypatch.setenv("MILLM_HOME", str(folder))
    return folder


@pytest.fixture(scope="module")
def model(tiny_model: Path) -> PreTrainedModel:
    loaded = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    loaded.generation_config.eos_token_id = None  # so that every answer has its length
    return loaded


@pytest.fixture(scope="module")
def tokenizer(tiny_model: Path) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast.from_pretrained(tiny_model)


@pytest.fixture
def sae(tiny_sae: Path) -> SAE:
    return SAE.load(tiny_sae)


@pytest.fixture(scope="session")
def deeper_sae(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two layers behind the other one."""
    return write_sae(tmp_path_factory.mktemp("saes") / "deeper", seed=5, layer=3)


@pytest.fixture(scope="module")
def api(
    tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, tiny_sae: Path, deeper_sae: Path
) -> Iterator[httpx.Client]:
    """The same files served in the model's own float32, one request at a time: bit by bit what transformers does."""
    given = ("serve", str(tiny_model), "--sae", str(tiny_sae), "--sae", str(deeper_sae))
    home = tmp_path_factory.mktemp("server-home")
    with (
        running(*given, model="tiny-llama", home=home, cpu_int8="off", runner="plain") as server,
        httpx.Client(base_url=server.url, timeout=60) as client,
    ):
        yield client
