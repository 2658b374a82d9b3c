"""`POST /v1/chat/completions`: a completion whose prompt the model's chat template writes."""

import asyncio

from fastapi import APIRouter, Request, Response

from millm.openai.forms import ChatForm
from millm.openai.history import turns
from millm.openai.job import ProfileHeader, choose, plan
from millm.openai.json_route import JsonRoute
from millm.openai.schemas.chat import ChatRequest
from millm.openai.telling import tell
from millm.openai.unsupported import check_chat
from millm.state import State

router = APIRouter(route_class=JsonRoute)


@router.post("/chat/completions")
async def chat_completions(body: ChatRequest, request: Request, x_millm_profile: ProfileHeader = None) -> Response:
    """Answer a conversation, whole or as a stream."""
    check_chat(body)
    messages = turns(body.messages)
    state: State = request.app.state.millm
    selection = choose(state, body, x_millm_profile)
    model = selection.model
    prompt = await asyncio.to_thread(model.template.ids, messages)
    stop = (*body.stop, *model.template.stop_strings)
    job = plan(state, selection, body, [prompt], prefix="chatcmpl", stop=stop)
    form = ChatForm(model.tokenizer, logprobs=body.logprobs)
    return await tell(request, state.engine, job, form, streaming=body.stream)
