"""`POST /v1/chat/completions`: a completion whose prompt the model's chat template writes."""

import asyncio

from fastapi import APIRouter, Request, Response

from millm.openai.constraint import grammar_of
from millm.openai.forms import ChatForm
from millm.openai.history import turns
from millm.openai.job import ProfileHeader, choose, plan
from millm.openai.json_route import JsonRoute
from millm.openai.prompting import write_down
from millm.openai.reading import reading_of
from millm.openai.schemas.chat import ChatRequest
from millm.openai.telling import tell
from millm.openai.tools import tooling_of
from millm.openai.unsupported import check_chat
from millm.state import State

router = APIRouter(route_class=JsonRoute)


@router.post("/chat/completions")
async def chat_completions(body: ChatRequest, request: Request, x_millm_profile: ProfileHeader = None) -> Response:
    """Answer a conversation, whole or as a stream."""
    state: State = request.app.state.millm
    check_chat(body)
    turns(body.messages, native=False)  # refuses what is no text before anything is decided
    tooling = tooling_of(body, parses=state.settings.tools == "auto")
    grammar = await asyncio.to_thread(grammar_of, body.response_format, tooling)
    selection = choose(state, body, x_millm_profile)
    model = selection.model
    written = await asyncio.to_thread(write_down, model, body, tooling)
    job = plan(
        state,
        selection,
        body,
        [written.prompt.ids],
        prefix="chatcmpl",
        stop=(*body.stop, *model.template.stop_strings),
        continues=body.continue_final_message,
        grammar=grammar,
        reading=reading_of(model, tooling, written.prompt.text, is_constrained=grammar is not None),
        tools_omitted=not written.tells_tools,
    )
    form = ChatForm(model.tokenizer, logprobs=body.logprobs, calls_only=tooling.is_forced)
    return await tell(request, state.engine, job, form, streaming=body.stream)
