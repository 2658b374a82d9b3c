"""Server-sent events as OpenAI's clients parse them, closed for certain when their client goes.

Unless an endpoint writes them down in its own way, they are `data: {json}` and a blank line, at last `data: [DONE]`.

Work that stops when its client has gone: the server tells nobody of that but who asks.

A stream on which something moves: all items that are ready, or after a long silence a sign of life.

What is ready at once goes on at once: a fast engine pays for one write a burst, not for one a token.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable
from contextlib import aclosing, suppress
from typing import Protocol, TypeVar, cast

import msgspec
import structlog
from fastapi import Request, Response
from starlette.requests import ClientDisconnect
from starlette.responses import StreamingResponse
from starlette.types import Send

from millm.errors import MillmError
from millm.protocol.errors import error_body

Result = TypeVar("Result")


async def cancel_on_disconnect(request: Request, work: Awaitable[Result]) -> Result:
    """The result of `work`. Raises ClientDisconnect, after cancelling it, when the client goes first."""
    working = asyncio.ensure_future(work)
    leaving = asyncio.create_task(_wait_for_disconnect(request))
    try:
        await asyncio.wait((working, leaving), return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientDisconnect
        return working.result()
    finally:
        working.cancel()
        leaving.cancel()
        await asyncio.gather(working, leaving, return_exceptions=True)


async def _wait_for_disconnect(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


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


log = structlog.get_logger()
SSE_HEADERS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
KEEP_ALIVE_COMMENT = b": working\n\n"
"""A comment: every client skips it, and no proxy on the way takes the silence for the end."""
_encode = msgspec.json.Encoder().encode
ChunkStream = AsyncGenerator[msgspec.Struct]
"""What there is to tell, in order."""
BatchStream = AsyncGenerator[list[msgspec.Struct]]
"""Chunks that are ready at once; none is a sign of life."""


class EventEncoder(Protocol):
    """How an endpoint writes its events down."""

    terminator: bytes
    """Behind the last event, whatever became of the answer."""

    def encode_event(self, event: msgspec.Struct) -> bytes: ...

    def encode_failure(self, failure: Exception) -> bytes: ...


class DataEventEncoder:
    """As chats and completions are streamed."""

    terminator = b"data: [DONE]\n\n"

    def encode_event(self, event: msgspec.Struct) -> bytes:
        return b"data: " + _encode(event) + b"\n\n"

    def encode_failure(self, failure: Exception) -> bytes:
        return b"data: " + _encode(error_body(failure)) + b"\n\n"


class EventStream(StreamingResponse):
    """A stream that is closed for certain when its client goes, also before the first event and between two."""

    media_type = "text/event-stream"

    def __init__(self, first: list[msgspec.Struct], batches: BatchStream, encoder: EventEncoder) -> None:
        super().__init__(_encoded_batches(first, batches, encoder), headers=SSE_HEADERS)
        self._batches = batches

    async def stream_response(self, send: Send) -> None:
        async with aclosing(self._batches), aclosing(cast(AsyncGenerator[bytes], self.body_iterator)):
            await super().stream_response(send)


async def stream_events(request: Request, chunks: ChunkStream, encoder: EventEncoder | None = None) -> Response:
    """Starts with the first chunk, or a sign of life: what fails before it is an ordinary error answer."""
    batches = batch_with_keep_alive(chunks)
    first = await cancel_on_disconnect(request, anext(batches))
    return EventStream(first, batches, encoder or DataEventEncoder())


async def _encoded_batches(
    first: list[msgspec.Struct], batches: BatchStream, encoder: EventEncoder
) -> AsyncGenerator[bytes]:
    """What is ready at once is one write."""
    try:
        yield _encode_batch(first, encoder)
        async for batch in batches:
            yield _encode_batch(batch, encoder)
    except Exception as failure:  # noqa: BLE001  the status is out: only an event can tell it now
        _log_failure(failure)
        yield encoder.encode_failure(failure)
    if encoder.terminator:
        yield encoder.terminator


def _encode_batch(batch: list[msgspec.Struct], encoder: EventEncoder) -> bytes:
    return b"".join(map(encoder.encode_event, batch)) or KEEP_ALIVE_COMMENT


def _log_failure(failure: Exception) -> None:
    """A trace only for what nobody foresaw: an engine that dies fails hundreds of streams at once."""
    if isinstance(failure, MillmError):
        log.warning("stream.failed", code=failure.code, reason=failure.message)
    else:
        log.error("stream.failed", exc_info=failure)
