"""`POST /v1/chat/completions`: a completion whose prompt the model's chat template writes."""

from fastapi import APIRouter, Request, Response

from millm.openai.chat_job import chat_job
from millm.openai.forms import ChatForm
from millm.openai.job import ProfileHeader
from millm.openai.json_route import JsonRoute
from millm.openai.schemas.chat import ChatRequest
from millm.openai.schemas.document import STREAM
from millm.openai.telling import tell
from millm.openai.tools import tooling_of
from millm.openai.unsupported import check_chat
from millm.state import State

router = APIRouter(route_class=JsonRoute)


@router.post("/chat/completions", responses=STREAM)
async def chat_completions(body: ChatRequest, request: Request, x_millm_profile: ProfileHeader = None) -> Response:
    """Answer a conversation, whole or as a stream."""
    state: State = request.app.state.millm
    check_chat(body)
    tooling = tooling_of(body, parses=state.settings.tools == "auto")
    job = await chat_job(state, body, tooling, x_millm_profile, prefix="chatcmpl-")
    form = ChatForm(job.selection.model.tokenizer, logprobs=body.logprobs, calls_only=tooling.is_forced)
    return await tell(request, state.engine, job, form, streaming=body.stream)
