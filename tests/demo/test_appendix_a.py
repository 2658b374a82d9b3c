"""Appendix A of the requirements: from the search for a feature to its activations."""

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from openai import OpenAI
from websockets.sync.client import ClientConnection, connect

from millm.demo.bundle import MODEL_NAME, SAE_NAME
from tests.fixtures.process import Server

pytestmark = pytest.mark.demo

NAME = "yelling-demo"
QUESTION = "Tell me about the sea."
TOKENS = 24


@pytest.fixture
def api(demo_server: Server) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=f"{demo_server.url}/api", timeout=60) as client:
        yield client
        client.put("/steering", content=b"null").raise_for_status()
        client.put("/monitor", json={"on": False}).raise_for_status()
        client.delete(f"/profiles/{NAME}")


def good(answer: httpx.Response) -> Any:
    return answer.raise_for_status().json()


def test_a_feature_is_found_set_saved_selected_seen_and_read_back(demo_server: Server, api: httpx.Client) -> None:
    feature = it_is_found(api)
    it_is_set_and_saved(api, feature)
    client = OpenAI(base_url=demo_server.base_url, api_key="none", max_retries=0)
    assert f"{MODEL_NAME}:{NAME}" in [model.id for model in client.models.list()]
    watch = {"sae": SAE_NAME, "features": [feature], "tokens": "all"}
    good(api.put("/monitor", json={"on": True, "watch": [watch]}))
    with connect(f"{demo_server.url.replace('http', 'ws')}/api/events", max_size=None) as live:
        base = ask(client)
        chosen = ask(client, extra_body={"profile": NAME})
        named = ask(client, model=f"{MODEL_NAME}:{NAME}")
        heard = until_ended(live, named.id)
    assert said(chosen) == said(named) != said(base)
    assert share_of_capitals(said(named)) > 0.8 > 0.2 > share_of_capitals(said(base))
    assert named.model_extra["millm"]["profile"] == NAME
    assert named.model_extra["millm"]["tokens_steered"] > TOKENS
    its_activations_are_read_back(api, named.id, heard)


def it_is_found(api: httpx.Client) -> int:
    """By its label, and by texts that contain it."""
    labelled = good(api.get("/features/search", params={"q": "all caps"}))["features"]
    texts = {
        "a": ["THE SEA IS WIDE AND COLD", "COME HERE RIGHT NOW"],
        "b": ["the sea is wide and cold", "come here now"],
    }
    separating = good(api.post("/features/contrast", json=texts))["more_in_a"]
    (feature,) = {one["index"] for one in labelled} & {one["index"] for one in separating[:3]}
    return int(feature)


def it_is_set_and_saved(api: httpx.Client, feature: int) -> None:
    state = good(api.patch("/steering", json={"features": [{"index": feature, "strength": 60}]}))
    (hook,) = state["hooks"]
    assert hook["delta_norm"] == pytest.approx(60, rel=1e-4)
    good(api.post("/profiles/save", json={"name": NAME}))
    assert good(api.put("/steering", content=b"null"))["fingerprint"] is None
    record = good(api.get(f"/profiles/{NAME}"))["profile"]
    assert [(one["index"], one["strength"]) for one in record["features"]] == [(feature, 60)]
    assert record["saes"][0]["width"] == 4096


def ask(client: OpenAI, model: str = MODEL_NAME, **more: Any) -> Any:
    question = [{"role": "user", "content": QUESTION}]
    return client.chat.completions.create(model=model, messages=question, max_tokens=TOKENS, temperature=0, **more)


def said(answer: Any) -> str:
    return answer.choices[0].message.content or ""


def share_of_capitals(text: str) -> float:
    letters = [letter for letter in text if letter.isalpha()]
    return sum(letter.isupper() for letter in letters) / len(letters)


def until_ended(live: ClientConnection, id: str) -> list[dict[str, Any]]:
    """The activations of a request, in order."""
    heard: list[dict[str, Any]] = []
    while True:
        for event in json.loads(live.recv(20)):
            if event["type"] == "activations" and event["request_id"] == id:
                heard.append(event)
            if event["type"] == "request" and event["request"]["id"] == id:
                return heard


def its_activations_are_read_back(api: httpx.Client, id: str, heard: list[dict[str, Any]]) -> None:
    record = good(api.get(f"/requests/{id}"))
    row = record["request"]
    assert (row["profile"], row["client"], row["completion_tokens"]) == (NAME, "openai-python", TOKENS)
    assert len(record["activations"]) == row["prompt_tokens"] + row["completion_tokens"] - 1  # the last is not fed back
    assert [(one["position"], one["values"]) for one in record["activations"]] == [
        (event["position"], event["values"]) for event in heard
    ]
    assert max(one["values"][0] for one in record["activations"]) > 0
    listed = good(api.get("/requests", params={"profile": NAME}))["requests"]
    assert id in [each["id"] for each in listed]
