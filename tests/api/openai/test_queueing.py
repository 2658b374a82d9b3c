"""Queued requests: keep-alives while they wait, and cancellation on disconnect."""

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from millm.api import sse
from tests.e2e.crowd import leave, send
from tests.fixtures.inside import Inside, serving
from tests.fixtures.process import Server

CHAT = "/v1/chat/completions"


def status(url: str) -> dict[str, Any]:
    return httpx.get(f"{url}/api/status", timeout=10).json()


@contextmanager
def busy(url: str, chat: dict[str, Any]) -> Iterator[int]:
    """Fill the queue with one request that runs until cancelled; returns its sequence count."""
    slots = status(url)["model"]["facts"]["slots"]
    body = {**chat, "temperature": 1.0, "n": 128, "max_tokens": 200, "logit_bias": {"2": -100}, "stream": True}
    with httpx.stream("POST", f"{url}{CHAT}", json=body, timeout=30) as answer:
        lines = answer.iter_lines()  # dropped, it would close the connection
        next(lines)
        yield slots


def until_in_flight(url: str, most: int) -> None:
    deadline = time.monotonic() + 2
    while (now := status(url))["in_flight"] > most:
        assert time.monotonic() < deadline, now


@pytest.fixture
def inside(tmp_path: Path, tiny_model: Path, tiny_sae: Path) -> Iterator[Inside]:
    with serving(tiny_model, tiny_sae, tmp_path) as inside:
        yield inside


def test_waiting_stream_gets_keep_alives_then_answer(inside: Inside, chat, monkeypatch) -> None:
    monkeypatch.setattr(sse, "KEEP_ALIVE_SECONDS", 0.1)
    with busy(inside.url, chat):
        waiting = httpx.stream("POST", f"{inside.url}{CHAT}", json={**chat, "stream": True}, timeout=30)
        with waiting as answer:
            assert answer.status_code == 200
            lines = answer.iter_lines()
            first = [next(lines) for _ in range(4)]
            result = status(inside.url)
            assert result["waiting"] >= 1
            inside.call(cancel_all_but_one, inside)
            rest = [line for line in lines if line.startswith("data: ")]
    assert first == [": working", ""] * 2
    assert rest[-1] == "data: [DONE]"
    assert '"finish_reason":"length"' in rest[-2]


def cancel_all_but_one(inside: Inside) -> None:
    """Cancel all earlier requests."""
    *earlier, _ = inside.state.engine._event_queues
    inside.state.engine.cancel(*earlier)


@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("waits", [False, True], ids=["running", "waiting"])
def test_disconnect_cancels_at_the_next_step(server: Server, chat, waits, stream, n) -> None:
    body = {**chat, "temperature": 1.0, "max_tokens": 200, "logit_bias": {"2": -100}, "stream": stream, "n": n}

    async def visit() -> None:
        before = (await asyncio.to_thread(status, server.url))["in_flight"]
        _, writer = await send(server.url, body, CHAT)
        arrived = time.monotonic()
        while time.monotonic() - arrived < 0.3:  # others may end meanwhile: then it stays below
            if (await asyncio.to_thread(status, server.url))["in_flight"] >= before + n:
                break
        await leave(writer)

    if waits:
        with busy(server.url, chat):
            asyncio.run(visit())
            until_in_flight(server.url, 128)
    else:
        asyncio.run(visit())
    until_in_flight(server.url, 0)
