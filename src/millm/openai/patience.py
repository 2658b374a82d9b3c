"""A stream on which something moves: all items that are ready, or after a long silence a sign of life.

What is ready at once goes on at once: a fast engine pays for one write a burst, not for one a token.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import suppress
from typing import TypeVar

Item = TypeVar("Item")

KEEP_ALIVE_SECONDS = 10.0
"""Proxies and clients cut connections on which nothing moves for longer than this times a few."""


async def batch_with_keep_alive(stream: AsyncIterator[Item]) -> AsyncGenerator[list[Item]]:
    """Items as they come, never held back; none after every silence of PATIENCE_SECONDS. Raises what it raises."""
    came: asyncio.Queue[Item | asyncio.Task[None]] = asyncio.Queue()
    reader = asyncio.create_task(_enqueue_all(stream, came))
    reader.add_done_callback(came.put_nowait)
    try:
        while True:
            ready = await _next_batch(came)
            items = [item for item in ready if not isinstance(item, asyncio.Task)]
            if items or not ready:
                yield items
            if len(items) < len(ready):
                break
        reader.result()
    finally:
        reader.cancel()
        await asyncio.gather(reader, return_exceptions=True)


async def _enqueue_all(stream: AsyncIterator[Item], queue: asyncio.Queue[Item | asyncio.Task[None]]) -> None:
    async for item in stream:
        queue.put_nowait(item)


async def _next_batch(queue: asyncio.Queue[Item | asyncio.Task[None]]) -> list[Item | asyncio.Task[None]]:
    """The next, and whatever else is there with it; nothing where none came in time."""
    ready = []
    with suppress(TimeoutError):
        async with asyncio.timeout(KEEP_ALIVE_SECONDS):
            ready.append(await queue.get())
    while not queue.empty():
        ready.append(queue.get_nowait())
    return ready
