"""`POST /v1/responses`: a chat in OpenAI's newer format. Nothing is stored, so nothing can be retrieved."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import msgspec
from fastapi import APIRouter, Request, Response

from millm.api.json_body import JsonRoute
from millm.api.openai.responses.events import ResponseEvent, ResponseFunctionTool, ResponseObject, ResponseStreamEvent
from millm.api.openai.responses.items import ResponseWriter
from millm.api.openai.responses.request import ResponsesRequest, TextConfig, check_unsupported, to_chat_request
from millm.api.sse import cancel_on_disconnect, stream_events
from millm.errors import NotFound
from millm.generation.chat import prepare_chat
from millm.generation.output import OutputStream, start_generation
from millm.generation.request import GenerationRequest, ProfileHeader
from millm.generation.tools import ToolConfig, tool_config_of
from millm.protocol.response import STREAM_RESPONSES
from millm.state import State


def initial_response(generation: GenerationRequest, body: ResponsesRequest, tooling: ToolConfig) -> ResponseObject:
    return ResponseObject(
        id=generation.id,
        created_at=generation.created,
        model=generation.requested_model,
        instructions=body.instructions,
        max_output_tokens=body.max_output_tokens,
        temperature=body.temperature,
        top_p=body.top_p,
        top_logprobs=body.top_logprobs or 0,
        presence_penalty=body.presence_penalty,
        frequency_penalty=body.frequency_penalty,
        text=_text_config(body.text),
        tools=_tools(body),
        tool_choice=body.tool_choice,
        parallel_tool_calls=tooling.parallel_calls if body.parallel_tool_calls is None else body.parallel_tool_calls,
        max_tool_calls=body.max_tool_calls,
        reasoning={"effort": body.reasoning.effort, "summary": None},
        truncation=body.truncation,
        metadata=body.metadata,
        user=body.user,
        safety_identifier=body.safety_identifier,
        prompt_cache_key=body.prompt_cache_key,
    )


def _text_config(config: TextConfig) -> dict[str, Any]:
    form = config.format
    schema = {"name": form.name, "description": form.description, "schema": form.schema_, "strict": form.strict}
    details = schema if form.type == "json_schema" else {}
    return {"format": {"type": form.type, **details}, "verbosity": config.verbosity}


def _tools(body: ResponsesRequest) -> tuple[ResponseFunctionTool, ...]:
    return tuple(
        ResponseFunctionTool(
            name=tool.name, description=tool.description, parameters=tool.parameters, strict=tool.strict
        )
        for tool in body.tools
    )


async def create_events_response(
    request: Request, outputs: OutputStream, writer: ResponseWriter, *, streaming: bool
) -> Response:
    """Raises MillmError before anything is sent; ClientDisconnect."""
    events = _response_events(outputs, writer)
    if streaming:
        return await stream_events(request, events, NamedEventEncoder(writer))
    return await cancel_on_disconnect(request, _final_response(events))


async def _response_events(outputs: OutputStream, writer: ResponseWriter) -> AsyncGenerator[ResponseStreamEvent]:
    async with aclosing(outputs):
        async for output in outputs:
            for event in writer.output_events(output):
                yield event


async def _final_response(events: AsyncGenerator[ResponseStreamEvent]) -> Response:
    async with aclosing(events):
        last = [event async for event in events][-1]
    assert isinstance(last, ResponseEvent)
    return Response(msgspec.json.encode(last.response), media_type="application/json")


class NamedEventEncoder:
    """Events with a name and a sequence number; no terminator."""

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


router = APIRouter(route_class=JsonRoute)


@router.post("/responses", responses=STREAM_RESPONSES)
async def responses(body: ResponsesRequest, request: Request, x_millm_profile: ProfileHeader = None) -> Response:
    """Answer a conversation, in full or as a stream of events. Nothing is stored."""
    state: State = request.app.state.millm
    check_unsupported(body)
    chat = to_chat_request(body)
    tooling = tool_config_of(chat, tools_enabled=state.settings.tools == "auto")
    generation = await prepare_chat(state, chat, tooling, x_millm_profile, prefix="resp_", format_name="text.format")
    writer = ResponseWriter(generation, initial_response(generation, body, tooling), logprobs=chat.logprobs)
    return await create_events_response(
        request, await start_generation(state.engine, generation, request), writer, streaming=body.stream
    )


@router.api_route("/responses/{id:path}", methods=["GET", "POST", "DELETE"], include_in_schema=False)
async def response_not_found(id: str) -> None:
    """Always 404: this server stores no responses."""
    raise NotFound(f"There is no response `{id[:128]}`: this server stores none; send the full conversation.")
