"""Server-sent events: batches, keep-alives, and cancellation when the client disconnects.

ASGI reports a disconnect only to a pending `receive()`, so work that must stop is run by `cancel_on_disconnect`. All
chunks that are ready are one write: a fast engine pays per batch, not per token.
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
    """The result of `work`, which is cancelled when the client disconnects. Raises ClientDisconnect."""
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
"""Proxies and clients close connections that are silent for several times as long."""


async def batch_with_keep_alive(stream: AsyncIterator[Item]) -> AsyncGenerator[list[Item]]:
    """Batches of all items that are ready; an empty batch after KEEP_ALIVE_SECONDS of silence."""
    queue: asyncio.Queue[Item | asyncio.Task[None]] = asyncio.Queue()
    reader = asyncio.create_task(_enqueue_all(stream, queue))
    reader.add_done_callback(queue.put_nowait)
    try:
        while True:
            ready = await _next_batch(queue)
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
    """The next item and all others that are ready; empty after KEEP_ALIVE_SECONDS."""
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
"""A comment: clients skip it, and proxies do not close the connection."""
_encode = msgspec.json.Encoder().encode
ChunkStream = AsyncGenerator[msgspec.Struct]
BatchStream = AsyncGenerator[list[msgspec.Struct]]
"""An empty batch is a keep-alive."""


class EventEncoder(Protocol):
    """The event format of an endpoint."""

    terminator: bytes
    """Sent after the last event, also after a failure."""

    def encode_event(self, event: msgspec.Struct) -> bytes: ...

    def encode_failure(self, failure: Exception) -> bytes: ...


class DataEventEncoder:
    """`data: {json}` events, as for chats and completions."""

    terminator = b"data: [DONE]\n\n"

    def encode_event(self, event: msgspec.Struct) -> bytes:
        return b"data: " + _encode(event) + b"\n\n"

    def encode_failure(self, failure: Exception) -> bytes:
        return b"data: " + _encode(error_body(failure)) + b"\n\n"


class EventStream(StreamingResponse):
    """A response whose stream is always closed, also when the client disconnects before the first event."""

    media_type = "text/event-stream"

    def __init__(self, first: list[msgspec.Struct], batches: BatchStream, encoder: EventEncoder) -> None:
        super().__init__(_encoded_batches(first, batches, encoder), headers=SSE_HEADERS)
        self._batches = batches

    async def stream_response(self, send: Send) -> None:
        async with aclosing(self._batches), aclosing(cast(AsyncGenerator[bytes], self.body_iterator)):
            await super().stream_response(send)


async def stream_events(request: Request, chunks: ChunkStream, encoder: EventEncoder | None = None) -> Response:
    """Waits for the first chunk or keep-alive: a failure before it is an ordinary error response."""
    batches = batch_with_keep_alive(chunks)
    first = await cancel_on_disconnect(request, anext(batches))
    return EventStream(first, batches, encoder or DataEventEncoder())


async def _encoded_batches(
    first: list[msgspec.Struct], batches: BatchStream, encoder: EventEncoder
) -> AsyncGenerator[bytes]:
    """One write per batch."""
    try:
        yield _encode_batch(first, encoder)
        async for batch in batches:
            yield _encode_batch(batch, encoder)
    except Exception as failure:  # noqa: BLE001  the status is sent: only an event can report the failure
        _log_failure(failure)
        yield encoder.encode_failure(failure)
    if encoder.terminator:
        yield encoder.terminator


def _encode_batch(batch: list[msgspec.Struct], encoder: EventEncoder) -> bytes:
    return b"".join(map(encoder.encode_event, batch)) or KEEP_ALIVE_COMMENT


def _log_failure(failure: Exception) -> None:
    """A traceback only for unexpected errors: a crashed engine fails hundreds of streams at once."""
    if isinstance(failure, MillmError):
        log.warning("stream.failed", code=failure.code, reason=failure.message)
    else:
        log.error("stream.failed", exc_info=failure)
