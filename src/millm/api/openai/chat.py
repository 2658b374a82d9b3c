"""`POST /v1/chat/completions`"""

from fastapi import APIRouter, Request, Response

from millm.api.json_body import JsonRoute
from millm.api.openai.response import ChatChoiceBuilder, create_response
from millm.api.openai.unsupported import check_chat
from millm.generation.chat import prepare_chat
from millm.generation.request import ProfileHeader
from millm.generation.tools import tool_config_of
from millm.protocol.request import ChatRequest
from millm.protocol.response import STREAM_RESPONSES
from millm.state import State

router = APIRouter(route_class=JsonRoute)


@router.post("/chat/completions", responses=STREAM_RESPONSES)
async def chat_completions(body: ChatRequest, request: Request, x_millm_profile: ProfileHeader = None) -> Response:
    """Answer a conversation, in full or as a stream."""
    state: State = request.app.state.millm
    check_chat(body)
    tooling = tool_config_of(body, tools_enabled=state.settings.tools == "auto")
    generation = await prepare_chat(state, body, tooling, x_millm_profile, prefix="chatcmpl-")
    builder = ChatChoiceBuilder(
        generation.selection.model.tokenizer, logprobs=body.logprobs, calls_only=tooling.is_forced
    )
    return await create_response(request, state.engine, generation, builder, streaming=body.stream)
