"""Batches and keep-alives of a stream: order, failures, closing, silence."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from millm.api import sse
from millm.api.sse import batch_with_keep_alive
from millm.errors import EngineFailed


def run(work: Coroutine[Any, Any, Any]) -> Any:
    async def within_five_seconds() -> Any:
        async with asyncio.timeout(5):
            return await work

    return asyncio.run(within_five_seconds())


async def stream(pauses: list[int]) -> AsyncIterator[int]:
    for index, pause in enumerate(pauses):
        for _ in range(pause):
            await asyncio.sleep(0)
        yield index


@given(st.lists(st.integers(0, 5), max_size=12))
def test_items_arrive_once_in_order(pauses) -> None:
    async def collect() -> list[int]:
        return [item async for items in batch_with_keep_alive(stream(pauses)) for item in items]

    assert run(collect()) == list(range(len(pauses)))


async def failing() -> AsyncIterator[int]:
    yield 9
    raise EngineFailed("the engine could not finish this")


def test_items_before_a_failure_arrive_then_it_raises() -> None:
    async def collect() -> list[list[int]]:
        stream = batch_with_keep_alive(failing())
        received = [await anext(stream)]
        with pytest.raises(EngineFailed):
            await anext(stream)
        return received

    assert run(collect()) == [[9]]


def test_closing_during_silence_closes_the_stream() -> None:
    closed = []

    async def silent() -> AsyncIterator[int]:
        try:
            yield 1
            await asyncio.sleep(60)
        finally:
            closed.append(True)

    async def leave() -> None:
        stream = batch_with_keep_alive(silent())
        assert await anext(stream) == [1]
        waiting = asyncio.create_task(anext(stream))
        await asyncio.sleep(0.01)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)

    run(leave())
    assert closed == [True]


def test_silence_yields_empty_batches(monkeypatch) -> None:
    monkeypatch.setattr(sse, "KEEP_ALIVE_SECONDS", 0.03)

    async def late() -> AsyncIterator[int]:
        await asyncio.sleep(0.1)
        yield 1

    async def collect() -> list[list[int]]:
        return [items async for items in batch_with_keep_alive(late())]

    received = run(collect())
    assert received[-1] == [1]
    assert received.count([]) >= 2


def test_ready_items_arrive_in_one_batch() -> None:
    async def bursts() -> AsyncIterator[int]:
        for burst in range(3):
            for index in range(4):
                yield 4 * burst + index
            await asyncio.sleep(0.01)

    async def collect() -> list[list[int]]:
        return [items async for items in batch_with_keep_alive(bursts())]

    assert run(collect()) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]
