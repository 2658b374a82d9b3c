"""A stream on which something moves: an item, or after a long silence a sign of life."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import suppress
from typing import TypeVar

Item = TypeVar("Item")

PATIENCE_SECONDS = 10.0
"""Proxies and clients cut connections on which nothing moves for longer than this times a few."""


async def with_signs_of_life(stream: AsyncIterator[Item]) -> AsyncGenerator[Item | None]:
    """Items as they come, and a None after every silence of PATIENCE_SECONDS. Raises what the stream raises."""
    came: asyncio.Queue[Item | asyncio.Task[None]] = asyncio.Queue()
    reader = asyncio.create_task(_read(stream, came))
    reader.add_done_callback(came.put_nowait)
    try:
        while not isinstance(item := await _next(came), asyncio.Task):
            yield item
        item.result()
    finally:
        reader.cancel()
        await asyncio.gather(reader, return_exceptions=True)


async def _read(stream: AsyncIterator[Item], into: asyncio.Queue[Item | asyncio.Task[None]]) -> None:
    async for item in stream:
        into.put_nowait(item)


async def _next(came: asyncio.Queue[Item | asyncio.Task[None]]) -> Item | asyncio.Task[None] | None:
    """None where nothing came in time."""
    with suppress(TimeoutError):
        async with asyncio.timeout(PATIENCE_SECONDS):
            return await came.get()
    return None
