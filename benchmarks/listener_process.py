"""Listeners of `/api/events` in a process of their own, which read all events and discard them.

    python -m benchmarks.listener_process ws://127.0.0.1:8000/api/events 64

Prints `ready` when all are connected; stops at the end of its standard input.
"""

import asyncio
import sys

from websockets.asyncio.client import connect


async def listen(url: str, count: int) -> None:
    ready = asyncio.Barrier(count + 1)
    tasks = [asyncio.create_task(read_events(url, ready)) for _ in range(count)]
    await ready.wait()
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.read)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def read_events(url: str, ready: asyncio.Barrier) -> None:
    async with connect(url, max_size=None) as socket:
        await ready.wait()
        async for _ in socket:
            pass


if __name__ == "__main__":
    asyncio.run(listen(sys.argv[1], int(sys.argv[2])))
