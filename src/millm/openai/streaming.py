"""Server-sent events as OpenAI's clients parse them, closed for certain when their client goes.

Unless an endpoint writes them down in its own way, they are `data: {json}` and a blank line, at last `data: [DONE]`.
"""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Protocol, cast

import msgspec
import structlog
from fastapi import Request, Response
from starlette.responses import StreamingResponse
from starlette.types import Send

from millm.errors import MillmError
from millm.openai.disconnect import cancel_on_disconnect
from millm.openai.patience import batch_with_keep_alive
from millm.protocol.errors import error_body

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
