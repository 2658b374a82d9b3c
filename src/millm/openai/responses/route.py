"""`/v1/responses`: a chat asked for and told in the newer way. Nothing is kept, so there is nothing to fetch."""

from fastapi import APIRouter, Request, Response

from millm.errors import NotFound
from millm.openai.chat_job import chat_job
from millm.openai.job import ProfileHeader
from millm.openai.json_route import JsonRoute
from millm.openai.responses.begun import begun
from millm.openai.responses.refused import check
from millm.openai.responses.request import ResponsesRequest
from millm.openai.responses.telling import tell
from millm.openai.responses.translate import as_chat
from millm.openai.responses.writer import Writer
from millm.openai.schemas.document import STREAM
from millm.openai.telling import pieces_of
from millm.openai.tools import tooling_of
from millm.state import State

router = APIRouter(route_class=JsonRoute)


@router.post("/responses", responses=STREAM)
async def responses(body: ResponsesRequest, request: Request, x_millm_profile: ProfileHeader = None) -> Response:
    """Answer a conversation, whole or as a stream of events. Nothing is kept."""
    state: State = request.app.state.millm
    check(body)
    chat = as_chat(body)
    tooling = tooling_of(chat, parses=state.settings.tools == "auto")
    job = await chat_job(state, chat, tooling, x_millm_profile, prefix="resp_", format_name="text.format")
    writer = Writer(job, begun(job, body, tooling), logprobs=chat.logprobs)
    return await tell(request, await pieces_of(state.engine, job, request), writer, streaming=body.stream)


@router.api_route("/responses/{kept:path}", methods=["GET", "POST", "DELETE"], include_in_schema=False)
async def find(kept: str) -> None:
    """Always 404: this server keeps no responses."""
    raise NotFound(f"There is no response `{kept[:128]}`: this server keeps none; send the whole conversation.")
