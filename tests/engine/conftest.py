"""An engine in a process of its own, with the tiny model and SAE; and the same model in plain transformers."""

import asyncio
from collections.abc import AsyncIterator, Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest
import torch
from transformers import LlamaForCausalLM, PreTrainedModel

from millm.engine import model_runner as slots_runner
from millm.engine.client import EngineClient
from millm.engine.messages import AttachSae, Finished, Generate, LoadModel, ModelFacts, Token
from millm.engine.model_loader import model_facts
from millm.engine.model_runner import PlainRunner
from millm.engine.runner_selection import RunnerChoice
from tests.engine.engine_harness import CALIBRATION, EngineHarness, load

T = TypeVar("T")


class Loop:
    """An event loop that outlives a test, so that tests share one engine."""

    def __init__(self) -> None:
        self._runner = asyncio.Runner()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self._runner.run(work)

    def close(self) -> None:
        self._runner.close()


class Engine:
    """An engine client whose methods block."""

    def __init__(self, loop: Loop, client: EngineClient) -> None:
        self.loop = loop
        self.client = client

    def generate(self, *requests: Generate) -> list[list[Token | Finished]]:
        """All at once; → the events of each."""

        async def together() -> list[list[Token | Finished]]:
            return await asyncio.gather(*(collect(self.client.generate(request)) for request in requests))

        return self.loop.run(together())

    def tokens(self, request: Generate) -> list[int]:
        return [event.token for event in self.generate(request)[0] if isinstance(event, Token)]


def described(model: PreTrainedModel) -> ModelFacts:
    """What a model says of itself when the plain runner has it."""
    return model_facts(model, RunnerChoice(PlainRunner(model), "plain", ""), LoadModel(id="load", path=""))


async def collect(events: AsyncIterator[Token | Finished]) -> list[Token | Finished]:
    return [event async for event in events]


async def start(tiny_model: Path, tiny_sae: Path, canonical_root: Path) -> EngineClient:
    client = EngineClient(max_queue=64)
    await client.start()
    await client.load(LoadModel(id="load", path=str(tiny_model), special_ids=(0, 1, 2)))
    await client.attach(
        AttachSae(
            id="attach", sae="tiny", path=str(tiny_sae), canonical_root=str(canonical_root),
            calibration_ids=CALIBRATION, model_name="tiny-llama",
        )
    )  # fmt: skip
    return client


@pytest.fixture(scope="session")
def loop() -> Iterator[Loop]:
    loop = Loop()
    yield loop
    loop.close()


@pytest.fixture(scope="session")
def canonical_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("canonical")


@pytest.fixture(scope="session")
def engine(loop: Loop, tiny_model: Path, tiny_sae: Path, canonical_root: Path) -> Iterator[Engine]:
    client = loop.run(start(tiny_model, tiny_sae, canonical_root))
    yield Engine(loop, client)
    loop.run(client.close())


@pytest.fixture(scope="session")
def reference(tiny_model: Path) -> LlamaForCausalLM:
    """The same weights, without any of our code."""
    torch.manual_seed(0)
    return LlamaForCausalLM.from_pretrained(tiny_model, dtype=torch.float32).eval()


@pytest.fixture(scope="session")
def alone(tiny_model: Path, tiny_sae: Path, canonical_root: Path) -> EngineHarness:
    """One sequence at a time."""
    return load(EngineHarness(), tiny_model, tiny_sae, canonical_root, runner="plain")


@pytest.fixture(scope="session")
def batched(tiny_model: Path, tiny_sae: Path, canonical_root: Path) -> EngineHarness:
    """Few rows and short chunks, so that everything that can happen to a row happens."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(slots_runner.PREFILL_CHUNK_TOKENS, "cpu", 5)
        return load(EngineHarness(), tiny_model, tiny_sae, canonical_root, runner="slots", slots=3)
