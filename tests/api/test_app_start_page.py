"""The start page at `/`."""

import asyncio
import html
from pathlib import Path

import httpx

from millm.api.app import create_app
from millm.engine.messages import ModelFacts
from millm.loaded import LoadedModel
from millm.profiles.schema import Profile
from millm.state import State
from millm.text.chat_template import ChatTemplate
from millm.text.tokenizer import Tokenizer
from tests.fixtures.bare import bare_state
from tests.fixtures.process import Server

HOSTILE = "<img src=x onerror=alert(1)>"
FACTS = ModelFacts(
    architecture="LlamaForCausalLM", layers=4, width=48, vocab_size=400, context_length=256, stop_ids=(2,),
    device="cpu", dtype="float32", parameters=1234567, runner="plain",
)  # fmt: skip


def page_of(state: State) -> str:
    async def get() -> httpx.Response:
        transport = httpx.ASGITransport(app=create_app(state))
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8000") as client:
            return await client.get("/")

    return asyncio.run(get()).raise_for_status().text


def test_shows_the_loaded_model_and_how_to_use_it(server: Server) -> None:
    answer = httpx.get(f"{server.url}/", trust_env=False)
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    texts = ["tiny-llama", "tiny", "blocks.1.hook_resid_post", "96 features", "tiny-llama:push", "The hold profile."]
    assert [text for text in [*texts, server.base_url] if text not in answer.text] == []


def test_while_nothing_is_loaded() -> None:
    page = page_of(bare_state())
    assert "still loading" in page


def test_names_are_text_not_html(tiny_model: Path) -> None:
    tokenizer = Tokenizer.from_folder(tiny_model)
    model = LoadedModel(f"a/{HOSTILE}", FACTS, tokenizer, ChatTemplate.from_folder(tiny_model, tokenizer))
    state = bare_state()
    state.model = model
    state.profiles.add(Profile(name="p", description=f"{HOSTILE}{{{{ 7 * 7 }}}}"))
    page = page_of(state)
    assert HOSTILE not in page
    assert html.escape(f"a/{HOSTILE}:p") in page
    assert html.escape(f"{HOSTILE}{{{{ 7 * 7 }}}}") in page
