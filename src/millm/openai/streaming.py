"""Server-sent events as OpenAI's clients parse them: `data: {json}` and a blank line, at last `data: [DONE]`."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import cast

import msgspec
import structlog
from fastapi import Request, Response
from starlette.responses import StreamingResponse
from starlette.types import Send

from millm.errors import MillmError
from millm.openai.disconnect import unless_gone
from millm.openai.envelope import envelope
from millm.openai.patience import with_signs_of_life
from millm.openai.schemas.answers import Answer

log = structlog.get_logger()

HEADERS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
DONE = b"data: [DONE]\n\n"
STILL_THERE = b": working\n\n"
"""A comment: every client skips it, and no proxy on the way takes the silence for the end."""

_encode = msgspec.json.Encoder().encode

Batches = AsyncGenerator[list[Answer]]
"""Chunks that are ready at once; none is a sign of life."""


class EventStream(StreamingResponse):
    """A stream that is closed for certain when its client goes, also before the first event and between two."""

    media_type = "text/event-stream"

    def __init__(self, first: list[Answer], chunks: Batches) -> None:
        super().__init__(_events(first, chunks), headers=HEADERS)
        self._chunks = chunks

    async def stream_response(self, send: Send) -> None:
        async with aclosing(self._chunks), aclosing(cast(AsyncGenerator[bytes], self.body_iterator)):
            await super().stream_response(send)


async def stream(request: Request, chunks: AsyncGenerator[Answer]) -> Response:
    """Starts with the first chunk, or a sign of life: what fails before it is an ordinary error answer."""
    batches = with_signs_of_life(chunks)
    first = await unless_gone(request, anext(batches))
    return EventStream(first, batches)


async def _events(first: list[Answer], batches: Batches) -> AsyncGenerator[bytes]:
    """What is ready at once is one write."""
    try:
        yield _event(first)
        async for batch in batches:
            yield _event(batch)
    except Exception as failure:  # noqa: BLE001  the status is out: only an event can tell it now
        _log(failure)
        yield b"data: " + _encode(envelope(failure)) + b"\n\n"
    yield DONE


def _event(batch: list[Answer]) -> bytes:
    return b"".join(b"data: " + _encode(chunk) + b"\n\n" for chunk in batch) or STILL_THERE


def _log(failure: Exception) -> None:
    """A trace only for what nobody foresaw: an engine that dies fails hundreds of streams at once."""
    if isinstance(failure, MillmError):
        log.warning("stream.failed", code=failure.code, reason=failure.message)
    else:
        log.error("stream.failed", exc_info=failure)
