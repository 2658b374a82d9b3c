"""Texts in the history: prompts as the model reads them, answers, and request bodies."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from transformers import AutoTokenizer

from tests.fixtures.inside import serving

MESSAGES = [{"role": "system", "content": "Be short."}, {"role": "user", "content": "Tell me about the sea."}]
CHAT = {"model": "tiny-llama", "messages": MESSAGES, "max_tokens": 8, "temperature": 0}


@pytest.fixture(scope="module", params=["all", "answers", "off"])
def stored(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def api(
    stored: str, tiny_model: Path, tiny_sae: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[httpx.Client]:
    home = tmp_path_factory.mktemp("home")
    with (
        serving(tiny_model, tiny_sae, home, cpu_int8="off", history_texts=stored) as inside,
        httpx.Client(base_url=inside.url, timeout=30) as client,
    ):
        yield client


def remembered(api: httpx.Client, result: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = api.get(f"/api/requests/{result['id']}").raise_for_status().json()
    return found


def test_chat_texts(api: httpx.Client, stored: str, tiny_model: Path) -> None:
    result = api.post("/v1/chat/completions", json=CHAT | {"n": 2}).raise_for_status().json()
    found = remembered(api, result)
    spoken = [choice["message"]["content"] for choice in result["choices"]]
    assert found["answers"] == (None if stored == "off" else spoken)
    if stored != "all":
        assert found["prompts"] is found["body"] is None
        return
    template = AutoTokenizer.from_pretrained(tiny_model).apply_chat_template
    assert found["prompts"] == [template(MESSAGES, tokenize=False, add_generation_prompt=True)]
    assert json.loads(found["body"]) == CHAT | {"n": 2}
    again = api.post("/v1/chat/completions", content=found["body"].encode()).raise_for_status().json()
    assert [choice["message"]["content"] for choice in again["choices"]] == spoken


def test_stream_text_is_joined(api: httpx.Client, stored: str) -> None:
    text, id = "", ""
    with api.stream("POST", "/v1/chat/completions", json=CHAT | {"stream": True}) as answer:
        for line in answer.iter_lines():
            if line.startswith("data: {"):
                chunk = json.loads(line.removeprefix("data: "))
                id = chunk["id"]
                text += "".join(choice["delta"].get("content") or "" for choice in chunk["choices"])
    assert text
    assert remembered(api, {"id": id})["answers"] == (None if stored == "off" else [text])


def test_embedding_texts_have_no_answers(api: httpx.Client, stored: str) -> None:
    api.post("/v1/embeddings", json={"model": "tiny-llama", "input": ["One", "two"]}).raise_for_status()
    newest = api.get("/api/requests?endpoint=/v1/embeddings").json()["requests"][0]
    found = remembered(api, newest)
    assert found["answers"] is None
    assert found["prompts"] == (["One", "two"] if stored == "all" else None)


def test_partial_answer_is_stored_after_disconnect(api: httpx.Client, stored: str) -> None:
    endless = CHAT | {"stream": True, "max_tokens": 200, "ignore_eos": True}
    with api.stream("POST", "/v1/chat/completions", json=endless) as answer:
        spoken = ""
        for line in answer.iter_lines():
            if line.startswith("data: {"):
                chunk = json.loads(line.removeprefix("data: "))
                spoken += "".join(choice["delta"].get("content") or "" for choice in chunk["choices"])
            if len(spoken) > 3:
                break
    deadline = time.monotonic() + 30
    while (newest := api.get("/api/requests").json()["requests"][0])["id"] != chunk["id"]:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    found = remembered(api, newest)
    if stored == "off":
        assert found["answers"] is None
    else:
        assert found["answers"][0].startswith(spoken)
