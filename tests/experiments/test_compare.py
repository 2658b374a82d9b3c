"""Comparisons: every column equals the answer of the ordinary endpoint."""

import time
from itertools import zip_longest
from typing import Any

import httpx
import pytest

from millm.experiments.compare import first_divergence
from tests.experiments.asking import MESSAGES, PUSH, answered, events
from tests.fixtures.inside import Inside

SYSTEM = "Answer in capital letters only."


def text(told: list[dict[str, Any]], column: str) -> str:
    return "".join(event["text"] for event in told if event.get("column") == column and "text" in event)


def end(told: list[dict[str, Any]], column: str) -> dict[str, Any]:
    (found,) = [event for event in told if event.get("column") == column and "finish_reason" in event]
    return found


def test_columns_equal_chats_with_the_same_seed(api: httpx.Client, chat: dict[str, Any]) -> None:
    told = events(api, "/api/compare", {**chat, "steering": PUSH, "seed": 5, "system_prompt": SYSTEM})
    assert told[0] == {"model": "tiny-llama", "seed": 5, "columns": ["baseline", "steered", "system_prompt"]}
    asked = [{"role": "system", "content": SYSTEM}, *MESSAGES]
    ways = {
        "baseline": answered(api, seed=5, steering=None),
        "steered": answered(api, seed=5, steering=PUSH),
        "system_prompt": answered(api, seed=5, messages=asked),
    }
    for column, alone in ways.items():
        assert text(told, column) == alone["choices"][0]["message"]["content"]
        assert end(told, column)["finish_reason"] == alone["choices"][0]["finish_reason"]
        assert end(told, column)["usage"]["total_tokens"] == alone["usage"]["total_tokens"]
        assert end(told, column)["receipt"]["steering"] == alone["millm"]["steering"]
    assert end(told, "steered")["receipt"]["tokens_steered"] > 0
    assert told[-1]["prompt_tokens"] == {name: way["usage"]["prompt_tokens"] for name, way in ways.items()}


def test_divergence_is_the_first_different_token(api: httpx.Client, chat: dict[str, Any]) -> None:
    greedy = {"temperature": 0, "logprobs": True}
    told = events(api, "/api/compare", {**chat, "steering": PUSH, "temperature": 0})
    ways = [answered(api, steering=steering, **greedy) for steering in (None, PUSH)]
    base, pushed = ([one["token"] for one in way["choices"][0]["logprobs"]["content"]] for way in ways)
    differing = [ours != theirs for ours, theirs in zip_longest(base, pushed)]
    assert told[-1]["divergence"] == differing.index(True)
    nothing = {"features": [{"index": 3, "strength": 0.0}]}
    assert events(api, "/api/compare", {**chat, "steering": nothing, "seed": 2})[-1]["divergence"] is None


def test_first_divergence() -> None:
    assert [first_divergence(*rows) for rows in (([], []), ([1], [1]), ([1], [1, 2]), ([1, 2], [1, 3]), ([1], []))] == [
        None, None, 1, 1, 0,
    ]  # fmt: skip


def test_unstreamed_equals_stream_and_seed_reproduces(api: httpx.Client, chat: dict[str, Any]) -> None:
    whole = api.post("/api/compare", json={**chat, "profile": "push", "stream": False}).raise_for_status().json()
    told = events(api, "/api/compare", {**chat, "profile": "push", "seed": whole["seed"]})
    for column in whole["columns"]:
        assert column["text"] == text(told, column["column"])
        assert column["finish_reason"] == end(told, column["column"])["finish_reason"]
    assert whole["columns"][1]["receipt"]["profile"] == "push"
    assert whole["divergence"] == told[-1]["divergence"]


def test_prompt_is_completed_without_a_template(api: httpx.Client) -> None:
    body = {"prompt": "The sea is", "temperature": 0, "max_tokens": 8}
    told = events(api, "/api/compare", {**body, "model": "tiny-llama:push"})
    for column, model in (("baseline", "tiny-llama"), ("steered", "tiny-llama:push")):
        alone = api.post("/v1/completions", json={**body, "model": model}).raise_for_status().json()
        assert text(told, column) == alone["choices"][0]["text"]


def test_active_steering_is_the_default(api: httpx.Client, chat: dict[str, Any]) -> None:
    refused = api.post("/api/compare", json=chat)
    assert (refused.status_code, refused.json()["error"]["code"]) == (422, "invalid_steering")
    assert "make one active" in refused.json()["error"]["message"]
    api.put("/api/steering", json={"profile": "hold"}).raise_for_status()
    try:
        told = events(api, "/api/compare", {**chat, "seed": 1})
    finally:
        api.put("/api/steering", content=b"null").raise_for_status()
    assert end(told, "steered")["receipt"]["profile"] == "hold"
    assert end(told, "baseline")["receipt"]["steering"] is None
    assert text(told, "steered") == answered(api, seed=1, profile="hold")["choices"][0]["message"]["content"]


def test_disconnect_cancels_all_columns(api: httpx.Client, inside: Inside, chat: dict[str, Any]) -> None:
    endless = {**chat, "max_tokens": 200, "ignore_eos": True, "profile": "push"}
    with api.stream("POST", "/api/compare", json=endless) as answer:
        next(answer.iter_bytes())
        assert inside.call(lambda: inside.state.engine.in_flight) == 2
    left = time.monotonic()
    while inside.call(lambda: inside.state.engine.in_flight):
        assert time.monotonic() - left < 2
        time.sleep(0.01)


@pytest.mark.parametrize(
    ("changes", "status", "param"),
    [
        ({"messages": []}, 422, None),
        ({"prompt": "both"}, 422, None),
        ({"n": 2}, 422, None),
        ({"tools": []}, 422, "tools"),
        ({"seed": 2**70}, 422, "seed"),
        ({"temperature": 3}, 422, "temperature"),
        ({"max_tokens": 0}, 422, "max_tokens"),
        ({"system_prompt": ""}, 422, "system_prompt"),
        ({"profile": "nope"}, 404, "profile"),
        ({"model": "other"}, 404, "model"),
        ({"steering": {"features": [{"index": 96}]}}, 422, "steering.features"),
        ({"messages": [{"role": "user", "content": "sea " * 5000}]}, 422, None),
        ({"messages": [{"role": "user", "content": 7}]}, 422, "messages.0.content"),
    ],
)
def test_invalid_comparisons_are_rejected(api: httpx.Client, chat, changes, status, param) -> None:
    refused = api.post("/api/compare", json={**chat, "profile": "push", **changes})
    error = refused.json()["error"]
    assert (refused.status_code, error["param"]) == (status, param), error


@pytest.mark.parametrize(("content", "status"), [(b"", 422), (b"{", 400), (b'{"temperature": NaN}', 400), (b"[]", 422)])
def test_invalid_bodies_are_rejected(api: httpx.Client, content: bytes, status: int) -> None:
    for path in ("compare", "sweep", "calibrate"):
        assert api.post(f"/api/{path}", content=content).status_code == status
