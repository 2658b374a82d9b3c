"""Several streams as one, in the order their items come; all end when one fails or the reader leaves."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from typing import TypeVar

Item = TypeVar("Item")

PATIENCE_SECONDS = 10.0
"""Proxies and clients cut connections on which nothing moves for longer than this times a few."""


async def together(
    streams: Sequence[AsyncIterator[Item]], patience: float = PATIENCE_SECONDS
) -> AsyncGenerator[Item | None]:
    """Items as they come, and a None every `patience` seconds. Raises what a stream raises."""
    came: asyncio.Queue[Item | asyncio.Task[None] | None] = asyncio.Queue()
    readers = [asyncio.create_task(_read(stream, came)) for stream in streams]
    clock = asyncio.create_task(_tick(patience, came))
    for reader in readers:
        reader.add_done_callback(came.put_nowait)
    try:
        running = len(readers)
        while running:
            item = await came.get()
            if isinstance(item, asyncio.Task):
                item.result()
                running -= 1
            else:
                yield item
    finally:
        for task in (clock, *readers):
            task.cancel()
        await asyncio.gather(clock, *readers, return_exceptions=True)


async def _read(stream: AsyncIterator[Item], into: asyncio.Queue[Item | asyncio.Task[None] | None]) -> None:
    async for item in stream:
        into.put_nowait(item)


async def _tick(seconds: float, into: asyncio.Queue[Item | asyncio.Task[None] | None]) -> None:
    while True:
        await asyncio.sleep(seconds)
        into.put_nowait(None)
