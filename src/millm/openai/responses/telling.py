"""A response, streamed as numbered and named events, or whole: the one that the last of these events tells."""

from collections.abc import AsyncGenerator
from contextlib import aclosing

import msgspec
from fastapi import Request, Response

from millm.openai.disconnect import unless_gone
from millm.openai.responses.events import Event, OfResponse
from millm.openai.responses.writer import Writer
from millm.openai.streaming import stream
from millm.openai.telling import Pieces


async def tell(request: Request, pieces: Pieces, writer: Writer, *, streaming: bool) -> Response:
    """Raises MillmError as long as nothing of the answer is out; ClientDisconnect when nobody waits for it."""
    events = _events(pieces, writer)
    if streaming:
        return await stream(request, events, NamedEvents(writer))
    return await unless_gone(request, _whole(events))


async def _events(pieces: Pieces, writer: Writer) -> AsyncGenerator[Event]:
    async with aclosing(pieces):
        async for piece in pieces:
            for event in writer.told(piece):
                yield event


async def _whole(events: AsyncGenerator[Event]) -> Response:
    async with aclosing(events):
        told = [event async for event in events]
    last = told[-1]
    assert isinstance(last, OfResponse)
    return Response(msgspec.json.encode(last.response), media_type="application/json")


class NamedEvents:
    """How events are written down: with a name and a number each, and nothing behind the last."""

    end = b""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        self._sent = 0

    def event(self, event: msgspec.Struct) -> bytes:
        name = event.__struct_config__.tag
        numbered = msgspec.structs.replace(event, sequence_number=self._sent)
        self._sent += 1
        return f"event: {name}\ndata: ".encode() + msgspec.json.encode(numbered) + b"\n\n"

    def failure(self, failure: Exception) -> bytes:
        return b"".join(map(self.event, self._writer.failed(failure)))
