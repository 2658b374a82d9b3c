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
from millm.openai.disconnect import unless_gone
from millm.openai.envelope import envelope
from millm.openai.patience import with_signs_of_life

log = structlog.get_logger()

HEADERS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
STILL_THERE = b": working\n\n"
"""A comment: every client skips it, and no proxy on the way takes the silence for the end."""

_encode = msgspec.json.Encoder().encode

Chunks = AsyncGenerator[msgspec.Struct]
"""What there is to tell, in order."""

Batches = AsyncGenerator[list[msgspec.Struct]]
"""Chunks that are ready at once; none is a sign of life."""


class Notation(Protocol):
    """How an endpoint writes its events down."""

    end: bytes
    """Behind the last event, whatever became of the answer."""

    def event(self, event: msgspec.Struct) -> bytes: ...

    def failure(self, failure: Exception) -> bytes: ...


class DataLines:
    """As chats and completions are streamed."""

    end = b"data: [DONE]\n\n"

    def event(self, event: msgspec.Struct) -> bytes:
        return b"data: " + _encode(event) + b"\n\n"

    def failure(self, failure: Exception) -> bytes:
        return b"data: " + _encode(envelope(failure)) + b"\n\n"


class EventStream(StreamingResponse):
    """A stream that is closed for certain when its client goes, also before the first event and between two."""

    media_type = "text/event-stream"

    def __init__(self, first: list[msgspec.Struct], batches: Batches, notation: Notation) -> None:
        super().__init__(_events(first, batches, notation), headers=HEADERS)
        self._batches = batches

    async def stream_response(self, send: Send) -> None:
        async with aclosing(self._batches), aclosing(cast(AsyncGenerator[bytes], self.body_iterator)):
            await super().stream_response(send)


async def stream(request: Request, chunks: Chunks, notation: Notation | None = None) -> Response:
    """Starts with the first chunk, or a sign of life: what fails before it is an ordinary error answer."""
    batches = with_signs_of_life(chunks)
    first = await unless_gone(request, anext(batches))
    return EventStream(first, batches, notation or DataLines())


async def _events(first: list[msgspec.Struct], batches: Batches, notation: Notation) -> AsyncGenerator[bytes]:
    """What is ready at once is one write."""
    try:
        yield _frames(first, notation)
        async for batch in batches:
            yield _frames(batch, notation)
    except Exception as failure:  # noqa: BLE001  the status is out: only an event can tell it now
        _log(failure)
        yield notation.failure(failure)
    if notation.end:
        yield notation.end


def _frames(batch: list[msgspec.Struct], notation: Notation) -> bytes:
    return b"".join(map(notation.event, batch)) or STILL_THERE


def _log(failure: Exception) -> None:
    """A trace only for what nobody foresaw: an engine that dies fails hundreds of streams at once."""
    if isinstance(failure, MillmError):
        log.warning("stream.failed", code=failure.code, reason=failure.message)
    else:
        log.error("stream.failed", exc_info=failure)
