"""Several streams as one: order, failures, closing, signs of life."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from millm.errors import EngineFailed
from millm.openai.together import together


def run(work: Coroutine[Any, Any, Any]) -> Any:
    async def within_five_seconds() -> Any:
        async with asyncio.timeout(5):
            return await work

    return asyncio.run(within_five_seconds())


async def stream(name: int, pauses: list[int]) -> AsyncIterator[tuple[int, int]]:
    for place, pause in enumerate(pauses):
        for _ in range(pause):
            await asyncio.sleep(0)
        yield name, place


@given(st.lists(st.lists(st.integers(0, 5), max_size=6), max_size=5))
def test_every_item_comes_once_and_each_stream_keeps_its_order(pauses) -> None:
    async def collect() -> list[tuple[int, int]]:
        return [item async for item in together([stream(i, p) for i, p in enumerate(pauses)]) if item]

    came = run(collect())
    for name, of_stream in enumerate(pauses):
        assert [item for item in came if item[0] == name] == [(name, place) for place in range(len(of_stream))]
    assert len(came) == sum(map(len, pauses))


class Watched:
    """Endless streams that say when they were closed."""

    def __init__(self) -> None:
        self.closed: list[int] = []

    async def endless(self, name: int) -> AsyncIterator[int]:
        try:
            while True:
                await asyncio.sleep(0)
                yield name
        finally:
            self.closed.append(name)


async def failing() -> AsyncIterator[int]:
    yield 9
    raise EngineFailed("the engine could not finish this")


def test_one_failure_ends_all_and_is_raised() -> None:
    async def collect() -> list[int]:
        watched = Watched()
        with pytest.raises(EngineFailed):
            async for _ in together([watched.endless(0), failing(), watched.endless(1)]):
                pass
        return watched.closed

    assert sorted(run(collect())) == [0, 1]


def test_closing_it_closes_all() -> None:
    async def collect() -> list[int]:
        watched = Watched()
        streams = together([watched.endless(0), watched.endless(1)])
        await anext(streams)
        await streams.aclose()
        return watched.closed

    assert sorted(run(collect())) == [0, 1]


def test_silence_is_broken_by_signs_of_life() -> None:
    async def late() -> AsyncIterator[int]:
        await asyncio.sleep(0.1)
        yield 1

    async def collect() -> list[int | None]:
        return [item async for item in together([late()], patience=0.03)]

    came = run(collect())
    assert came[-1] == 1
    assert came.count(None) >= 2
