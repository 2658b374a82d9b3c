"""Hundreds of concurrent clients: all are answered, admission stays fast, disconnects leave no state."""

import asyncio
import json
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest

from tests.e2e.crowd import Answer, ask, leave, send
from tests.fixtures.process import Server

pytestmark = pytest.mark.slow

CROWD = 500
CHAT = "/v1/chat/completions"


def chat(server: Server, **changes: Any) -> dict[str, Any]:
    return {
        "model": server.model,
        "messages": [{"role": "user", "content": "Tell me about the sea."}],
        "max_tokens": 12,
        "stream": True,
        **changes,
    }


def hours_of_work(server: Server, **changes: Any) -> dict[str, Any]:
    """An answer that is longer than the test."""
    return chat(server, max_tokens=200, logit_bias={"2": -100}, **changes)


def status(server: Server) -> dict[str, Any]:
    return httpx.get(f"{server.url}/api/status", timeout=10).json()


def until_idle(server: Server, most: float = 2) -> float:
    """The seconds until the server is idle, at most `most`."""
    start = time.monotonic()
    while (now := status(server))["in_flight"]:
        assert time.monotonic() - start < most, now
    return time.monotonic() - start


def percentile(milliseconds: list[float], share: float) -> float:
    return sorted(milliseconds)[min(int(len(milliseconds) * share), len(milliseconds) - 1)]


def latency_summary(name: str, milliseconds: list[float]) -> str:
    median, most = statistics.median(milliseconds), max(milliseconds)
    return f"{name}: median {median:.1f}, p99 {percentile(milliseconds, 0.99):.1f}, max {most:.1f} ms"


@contextmanager
def probing(server: Server) -> Iterator[list[float]]:
    """Latencies of `/healthz` in milliseconds, filled at the end of the block."""
    probe = subprocess.Popen(
        [sys.executable, "-m", "tests.e2e.probe", server.url],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    took: list[float] = []
    try:
        yield took
    finally:
        took += json.loads(probe.communicate("stop\n", timeout=30)[0])


def is_whole_stream(answer: Answer) -> bool:
    *chunks, done = answer.frames
    reasons = [choice["finish_reason"] for chunk in chunks for choice in json.loads(chunk)["choices"]]
    return done == "[DONE]" and [reason for reason in reasons if reason] == reasons[-1:]


def test_five_hundred_concurrent_streams_complete(server: Server) -> None:
    """Admission latency, best of three: other processes can only make it slower."""

    async def crowd() -> list[Answer]:
        return await asyncio.gather(*(ask(server.url, chat(server, seed=seed)) for seed in range(CROWD)))

    slowest = []
    for _ in range(3):
        start = time.monotonic()
        with probing(server) as healthz:
            answers = asyncio.run(crowd())
        took = time.monotonic() - start
        sys.stdout.write(f"\n{CROWD} streams of 12 tokens in {took:.1f} s; {latency_summary('healthz', healthz)}\n")
        assert [answer.status for answer in answers] == [200] * CROWD
        assert all(is_whole_stream(answer) for answer in answers)
        assert status(server)["in_flight"] == 0
        slowest.append(percentile(healthz, 0.99))
        if slowest[-1] < 100:
            break
    assert min(slowest) < 100


@pytest.mark.parametrize("seed", [1])
def test_two_hundred_disconnecting_clients_leave_no_state(server: Server, seed: int) -> None:
    """At random moments: queued or running, before or during the answer, streamed or not."""
    chance = random.Random(seed)

    async def visit(stream: bool, n: int, arrives: float, patience: float) -> None:
        await asyncio.sleep(arrives)
        reader, writer = await send(server.url, hours_of_work(server, stream=stream, n=n), CHAT)
        try:
            async with asyncio.timeout(patience):
                await reader.read()
        except TimeoutError:
            pass
        finally:
            await leave(writer)

    async def storm() -> None:
        visits = [
            visit(chance.random() < 0.5, chance.choice((1, 1, 3)), chance.uniform(0, 1), chance.expovariate(2))
            for _ in range(200)
        ]
        await asyncio.gather(*visits)

    asyncio.run(storm())
    left = time.monotonic()
    gone = until_idle(server)
    answer = asyncio.run(ask(server.url, chat(server)))
    took = time.monotonic() - left - gone
    sys.stdout.write(
        f"\nfree {1000 * gone:.0f} ms after the last of 200 left; the next answer took {1000 * took:.0f} ms\n"
    )
    assert is_whole_stream(answer)
    assert took < 1


def test_a_full_queue_rejects_at_once(server: Server) -> None:
    now = status(server)
    room = now["model"]["facts"]["slots"] + 512

    async def wait_in_line() -> None:
        """Repeated until cancelled."""
        while True:
            await ask(server.url, hours_of_work(server))

    async def flood() -> tuple[list[Answer], list[float]]:
        line = [asyncio.create_task(wait_in_line()) for _ in range(room)]
        while (await asyncio.to_thread(status, server))["in_flight"] < room:
            await asyncio.sleep(0.05)
        refusals, took = [], []
        for turn in range(60):
            start = time.perf_counter()
            refusals.append(await ask(server.url, chat(server, stream=turn % 2 == 0)))
            took.append(1000 * (time.perf_counter() - start))
        for waiting in line:
            waiting.cancel()
        await asyncio.gather(*line, return_exceptions=True)
        return refusals, took

    refusals, took = asyncio.run(flood())
    sys.stdout.write(f"\n{latency_summary('refused', took)}\n")
    full = [answer for answer in refusals if answer.status == 503]
    assert len(full) >= 50  # a place may fall free meanwhile
    for answer in full:
        assert answer.json["error"]["code"] == "queue_full"
        assert 1 <= int(answer.headers["retry-after"]) <= 60
        assert "x-should-retry" not in answer.headers
    assert statistics.median(took) < 50
    until_idle(server, most=10)  # and who has left does not wait any more: five hundred sockets, on a busy machine
