"""Usage in responses, and the limits passed to the engine."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI, Request, Response
from starlette.testclient import TestClient

from millm.api.openai.response import CompletionChoiceBuilder, create_response
from millm.generation.request import GenerationRequest, build_request
from millm.lifecycle.selection import Selection
from millm.loaded import LoadedModel
from millm.protocol.request import CompletionRequest
from millm.settings import Settings
from millm.text.chat_template import ChatTemplate
from millm.text.tokenizer import Tokenizer
from tests.fixtures.bare import bare_state
from tests.generation.test_output import ScriptedEngine
from tests.lifecycle.test_selection import MODEL

PROMPTS = [[5, 6, 7], [5, 6, 7, 8, 9, 10]]
CACHED_EACH = 4
"""Cached tokens of every scripted sequence."""


@pytest.fixture
def model(tiny_model: Path) -> LoadedModel:
    tokenizer = Tokenizer.from_folder(tiny_model)
    return LoadedModel("tiny", MODEL, tokenizer, ChatTemplate.from_folder(tiny_model, tokenizer))


def planned(selection: Selection, prompts: list[list[int]], settings: Settings, **fields: Any) -> GenerationRequest:
    body = CompletionRequest.model_validate({"model": "tiny", **fields})
    state = replace(bare_state(), settings=settings, model=selection.model)
    return build_request(state, selection, body, prompts, prefix="cmpl-", stop=())


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("prompts", "n", "cached"), [(PROMPTS[1:], 1, CACHED_EACH), (PROMPTS, 1, 2 * CACHED_EACH), (PROMPTS, 3, 9)]
)
def test_cached_tokens_are_summed_up_to_prompt_tokens(model, prompts, n, cached, stream) -> None:
    options = {"stream_options": {"include_usage": True}} if stream else {}
    job = planned(Selection(model), prompts, Settings(), n=n, stream=stream, **options)
    app = FastAPI()
    app.state.millm = bare_state()  # to which nobody listens

    @app.get("/")
    async def answer(request: Request) -> Response:
        form = CompletionChoiceBuilder(model.tokenizer, logprobs=False)
        return await create_response(request, ScriptedEngine([20, 21]), job, form, streaming=stream)  # type: ignore[arg-type]

    text = TestClient(app).get("/").text
    last = text.split("\n\n")[-3].removeprefix("data: ") if stream else text
    usage = json.loads(last)["usage"]
    prompt = sum(map(len, prompts))
    assert usage["prompt_tokens_details"] == {"cached_tokens": cached}
    assert (usage["prompt_tokens"], usage["completion_tokens"]) == (prompt, 2 * n * len(prompts))


def test_sequences_have_follow_flag_and_deadline(model: LoadedModel) -> None:
    limited = planned(Selection(model, follows_active=True), PROMPTS, Settings(request_timeout=7.5))
    assert {(one.follows_active, one.deadline_seconds) for one in limited.sequences} == {(True, 7.5)}
    free = planned(Selection(model), PROMPTS, Settings())
    assert {(one.follows_active, one.deadline_seconds) for one in free.sequences} == {(False, None)}
