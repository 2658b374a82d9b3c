"""`/v1/responses`: a chat asked for and told in the newer way. Nothing is kept, so there is nothing to fetch."""

from fastapi import APIRouter, Request, Response

from millm.errors import NotFound
from millm.generation.chat import prepare_chat
from millm.generation.output import start_generation
from millm.generation.request import ProfileHeader
from millm.generation.tools import tool_config_of
from millm.openai.json_route import JsonRoute
from millm.openai.responses.begun import initial_response
from millm.openai.responses.refused import check_unsupported
from millm.openai.responses.request import ResponsesRequest
from millm.openai.responses.telling import create_events_response
from millm.openai.responses.translate import to_chat_request
from millm.openai.responses.writer import ResponseWriter
from millm.protocol.response import STREAM_RESPONSES
from millm.state import State

router = APIRouter(route_class=JsonRoute)


@router.post("/responses", responses=STREAM_RESPONSES)
async def responses(body: ResponsesRequest, request: Request, x_millm_profile: ProfileHeader = None) -> Response:
    """Answer a conversation, whole or as a stream of events. Nothing is kept."""
    state: State = request.app.state.millm
    check_unsupported(body)
    chat = to_chat_request(body)
    tooling = tool_config_of(chat, tools_enabled=state.settings.tools == "auto")
    job = await prepare_chat(state, chat, tooling, x_millm_profile, prefix="resp_", format_name="text.format")
    writer = ResponseWriter(job, initial_response(job, body, tooling), logprobs=chat.logprobs)
    return await create_events_response(
        request, await start_generation(state.engine, job, request), writer, streaming=body.stream
    )


@router.api_route("/responses/{kept:path}", methods=["GET", "POST", "DELETE"], include_in_schema=False)
async def response_not_found(kept: str) -> None:
    """Always 404: this server keeps no responses."""
    raise NotFound(f"There is no response `{kept[:128]}`: this server keeps none; send the whole conversation.")
