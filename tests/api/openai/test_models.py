"""The list of models, and single models by id, also with slashes."""

from pathlib import Path

import openai
import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from millm.api.app import install_error_handlers
from millm.api.openai import router
from millm.engine.messages import ModelFacts
from millm.loaded import LoadedModel
from millm.state import State
from millm.text.chat_template import ChatTemplate
from millm.text.tokenizer import Tokenizer
from tests.fixtures.bare import bare_state


def test_list_has_model_and_each_profile(client, server) -> None:
    entries = list(client.models.list())
    assert [entry.id for entry in entries] == [server.model, f"{server.model}:hold", f"{server.model}:push"]
    assert [entry.model_extra["millm"]["profile"] for entry in entries] == [None, "hold", "push"]
    for entry in entries:
        assert (entry.object, entry.owned_by) == ("model", "millm")
        assert entry.created > 1_700_000_000
        assert set(entry.model_extra) == {"name", "millm"}
        assert client.models.retrieve(entry.id) == entry


def test_unknown_model_id_is_404(client) -> None:
    for name in ("nope", "org/nope", "org%2Fnope"):
        with pytest.raises(openai.NotFoundError) as raised:
            client.models.retrieve(name)
        assert raised.value.code == "model_not_found"


def test_every_listed_model_answers(client, chat) -> None:
    for entry in client.models.list():
        answer = client.chat.completions.create(**{**chat, "model": entry.id, "max_tokens": 1})
        assert answer.model == entry.id


@pytest.fixture
def slashed(tiny_model: Path) -> State:
    """A model with a Hugging Face id."""
    tokenizer = Tokenizer.from_folder(tiny_model)
    facts = ModelFacts(
        architecture="LlamaForCausalLM", layers=4, width=48, vocab_size=400, context_length=256, stop_ids=(2,),
        device="cpu", dtype="float32", parameters=1, runner="plain",
    )  # fmt: skip
    state = bare_state()
    state.model = LoadedModel("google/gemma-2-2b", facts, tokenizer, ChatTemplate.from_folder(tiny_model, tokenizer))
    return state


@pytest.mark.parametrize("path", ["google/gemma-2-2b", "google%2Fgemma-2-2b"])
def test_ids_with_slash_are_found_encoded_or_not(slashed, path) -> None:
    app = FastAPI()
    app.state.millm = slashed
    install_error_handlers(app)
    app.include_router(router)
    assert TestClient(app).get(f"/v1/models/{path}").json()["id"] == "google/gemma-2-2b"
