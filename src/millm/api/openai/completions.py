"""`POST /v1/completions`: continues a prompt without a chat template."""

from fastapi import APIRouter, Request, Response

from millm.api.json_body import JsonRoute
from millm.api.openai.response import CompletionChoiceBuilder, create_response
from millm.api.openai.unsupported import check_completion
from millm.generation.completion import prepare_completion
from millm.generation.request import ProfileHeader
from millm.protocol.request import CompletionRequest
from millm.protocol.response import STREAM_RESPONSES
from millm.state import State

router = APIRouter(route_class=JsonRoute)


@router.post("/completions", responses=STREAM_RESPONSES)
async def completions(body: CompletionRequest, request: Request, x_millm_profile: ProfileHeader = None) -> Response:
    """Continue one prompt or several, in full or as a stream."""
    check_completion(body)
    state: State = request.app.state.millm
    generation = await prepare_completion(state, body, x_millm_profile, prefix="cmpl-")
    builder = CompletionChoiceBuilder(generation.selection.model.tokenizer, logprobs=body.logprobs is not None)
    return await create_response(request, state.engine, generation, builder, streaming=body.stream)
