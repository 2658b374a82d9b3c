"""A response, streamed as numbered and named events, or whole: the one that the last of these events tells."""

from collections.abc import AsyncGenerator
from contextlib import aclosing

import msgspec
from fastapi import Request, Response

from millm.generation.output import OutputStream
from millm.openai.disconnect import cancel_on_disconnect
from millm.openai.responses.events import ResponseEvent, ResponseStreamEvent
from millm.openai.responses.writer import ResponseWriter
from millm.openai.streaming import stream_events


async def create_events_response(
    request: Request, outputs: OutputStream, writer: ResponseWriter, *, streaming: bool
) -> Response:
    """Raises MillmError as long as nothing of the answer is out; ClientDisconnect when nobody waits for it."""
    events = _response_events(outputs, writer)
    if streaming:
        return await stream_events(request, events, NamedEventEncoder(writer))
    return await cancel_on_disconnect(request, _final_response(events))


async def _response_events(outputs: OutputStream, writer: ResponseWriter) -> AsyncGenerator[ResponseStreamEvent]:
    async with aclosing(outputs):
        async for piece in outputs:
            for event in writer.output_events(piece):
                yield event


async def _final_response(events: AsyncGenerator[ResponseStreamEvent]) -> Response:
    async with aclosing(events):
        told = [event async for event in events]
    last = told[-1]
    assert isinstance(last, ResponseEvent)
    return Response(msgspec.json.encode(last.response), media_type="application/json")


class NamedEventEncoder:
    """How events are written down: with a name and a number each, and nothing behind the last."""

    terminator = b""

    def __init__(self, writer: ResponseWriter) -> None:
        self._writer = writer
        self._sent_count = 0

    def encode_event(self, event: msgspec.Struct) -> bytes:
        name = event.__struct_config__.tag
        numbered = msgspec.structs.replace(event, sequence_number=self._sent_count)
        self._sent_count += 1
        return f"event: {name}\ndata: ".encode() + msgspec.json.encode(numbered) + b"\n\n"

    def encode_failure(self, failure: Exception) -> bytes:
        return b"".join(map(self.encode_event, self._writer.failure_events(failure)))
