"""So many listeners of `/api/events` in a process of their own: each takes what comes and throws it away.

    python -m benchmarks.ears ws://127.0.0.1:8000/api/events 64

Says `ready` when all are connected; ends with its standard input.
"""

import asyncio
import sys

from websockets.asyncio.client import connect


async def listen(url: str, count: int) -> None:
    ready = asyncio.Barrier(count + 1)
    ears = [asyncio.create_task(ear(url, ready)) for _ in range(count)]
    await ready.wait()
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.read)
    for task in ears:
        task.cancel()
    await asyncio.gather(*ears, return_exceptions=True)


async def ear(url: str, ready: asyncio.Barrier) -> None:
    async with connect(url, max_size=None) as socket:
        await ready.wait()
        async for _ in socket:
            pass


if __name__ == "__main__":
    asyncio.run(listen(sys.argv[1], int(sys.argv[2])))
