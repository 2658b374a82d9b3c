"""Two hundred cycles of attach, steer and detach during four concurrent answers.

Each answer equals the one without concurrency: the base model's, or steered from its first to its last token.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from millm.hub.locate import LocalCheckpoint
from millm.lifecycle.saes import attach, detach
from millm.lifecycle.selection import resolve_active
from millm.lifecycle.steering import activate
from millm.profiles.schema import SteeringRequest
from millm.state import State
from millm.status import SaeSpec
from tests.fixtures.inside import Inside, serving

CYCLES = 200
WARM = 40
KNOB = {"features": [{"index": 3, "strength": 6, "sae": "tiny"}]}
AT_THE_DOOR = {"invalid_steering", "sae_detached"}


pytestmark = pytest.mark.crashes


@pytest.fixture
def inside(tmp_path: Path, tiny_model: Path, tiny_sae: Path) -> Iterator[Inside]:
    with serving(tiny_model, tiny_sae, tmp_path / "home") as running:
        yield running


@dataclass
class ReaderResult:
    """The answers of one reader."""

    texts: set[str] = field(default_factory=set)
    answers: int = 0
    refused: int = 0
    failures: list[dict[str, Any]] = field(default_factory=list)


async def read(url: str, steering: object, results: ReaderResult, stop: asyncio.Event) -> None:
    async with httpx.AsyncClient(timeout=60, trust_env=False) as client:
        while not stop.is_set():
            text, error = await ask(client, url, steering)
            if error and not text and error["code"] in AT_THE_DOOR:
                results.refused += 1
            elif error:
                results.failures.append(error)
            else:
                results.answers += 1
                results.texts.add(text)


async def ask(client: httpx.AsyncClient, url: str, steering: object) -> tuple[str, dict[str, Any] | None]:
    """`steering`: `...` follows what is active."""
    body = {"model": "tiny-llama", "prompt": "The sea is wide", "max_tokens": 24, "temperature": 0, "ignore_eos": True,
            "stream": True, **({} if steering is ... else {"steering": steering})}  # fmt: skip
    text, error = "", None
    async with client.stream("POST", f"{url}/completions", json=body) as answer:
        if answer.status_code != 200:
            return "", json.loads(await answer.aread())["error"]
        async for line in answer.aiter_lines():
            if line.startswith("data: {"):
                event = json.loads(line.removeprefix("data: "))
                error = event.get("error", error)
                text += "".join(choice["text"] for choice in event.get("choices", ()))
    return text, error


@asynccontextmanager
async def readers(url: str, kinds: list[object]) -> AsyncIterator[list[ReaderResult]]:
    stop, results = asyncio.Event(), [ReaderResult() for _ in kinds]
    reading = [asyncio.create_task(read(url, kind, result, stop)) for kind, result in zip(kinds, results, strict=True)]
    try:
        yield results
    finally:
        stop.set()
        await asyncio.gather(*reading)


async def cycle(state: State, tiny_sae: Path) -> None:
    await detach(state, "tiny")
    await attach(state, SaeSpec(id="tiny"), location=LocalCheckpoint("tiny", tiny_sae))
    await activate(state, resolve_active(state, steering=SteeringRequest.model_validate(KNOB)))
    await asyncio.sleep(0.01)
    await activate(state, None)


@pytest.mark.timeout(400)
def test_readers_are_not_affected_by_steering_changes(inside: Inside, tiny_sae: Path) -> None:
    async def alone(steering: object) -> str:
        async with httpx.AsyncClient(timeout=60, trust_env=False) as client:
            text, error = await ask(client, inside.base_url, steering)
        assert error is None
        return text

    async def scenario() -> tuple[list[ReaderResult], list[int]]:
        engine = psutil.Process(inside.state.engine.pid)
        memory = []
        async with readers(inside.base_url, [None, None, KNOB, ...]) as results:
            for number in range(CYCLES):
                turn = asyncio.run_coroutine_threadsafe(cycle(inside.state, tiny_sae), inside.loop)
                await asyncio.wrap_future(turn)
                if number >= WARM:
                    memory.append(engine.memory_info().rss)
        return results, memory

    base, steered = asyncio.run(alone(None)), asyncio.run(alone(KNOB))
    assert base != steered
    results, memory = asyncio.run(scenario())
    assert [result.failures for result in results] == [[], [], [], []]
    assert [result.texts for result in results[:3]] == [{base}, {base}, {steered}]
    assert min(result.answers for result in results) > 0, results
    early, late = sum(memory[:20]) / 20, sum(memory[-20:]) / 20
    assert late - early < 16 * 2**20, f"{(late - early) / 2**20:.1f} MiB more after {CYCLES} cycles"
    assert asyncio.run(alone(None)) == base
    assert asyncio.run(alone(KNOB)) == steered
