"""The tiny model in the notebook and its SAEs, and a server with the same files."""

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
    """The folder for the copies of `SAE.load`."""
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
    """An SAE two layers after `tiny_sae`."""
    return write_sae(tmp_path_factory.mktemp("saes") / "deeper", seed=5, layer=3)


@pytest.fixture(scope="module")
def api(
    tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, tiny_sae: Path, deeper_sae: Path
) -> Iterator[httpx.Client]:
    """The same files, served in float32 and one request at a time: bit-identical to transformers."""
    arguments = ("serve", str(tiny_model), "--sae", str(tiny_sae), "--sae", str(deeper_sae))
    home = tmp_path_factory.mktemp("server-home")
    with (
        running(*arguments, model="tiny-llama", home=home, cpu_int8="off", runner="plain") as server,
        httpx.Client(base_url=server.url, timeout=60) as client,
    ):
        yield client
