"""`sample_every` over HTTP: the interval of `top_k` is reported, and `top` is absent in between."""

from typing import Any

import httpx
import pytest

from tests.api.openai.test_response import events, full

CHAT = "/chat/completions"
WATCH = {"top_k": 4, "tokens": "all"}


def watched(http: httpx.Client, chat: dict[str, Any], **activations: Any) -> dict[str, Any]:
    return full(http, CHAT, {**chat, "activations": {**WATCH, **activations}})["millm"]


def tops(extension: dict[str, Any]) -> dict[int, dict[int, float]]:
    """{position: {feature: activation}} of activations with a `top`."""
    return {entry["position"]: dict(entry["top"]) for entry in extension["activations"] if "top" in entry}


def same(found: dict[int, dict[int, float]], expected: dict[int, dict[int, float]]) -> None:
    assert list(found) == list(expected)
    for position, top in found.items():
        assert top == pytest.approx(expected[position], rel=1e-4)


def test_request_sets_sample_every(http, chat) -> None:
    every, fourths = (watched(http, chat, sample_every=n, features=[3]) for n in (1, 4))
    assert (every["sample_every"], fourths["sample_every"]) == (1, 4)
    assert list(tops(every)) == list(range(len(every["activations"])))
    same(tops(fourths), {position: top for position, top in tops(every).items() if position % 4 == 0})
    for one, other in zip(every["activations"], fourths["activations"], strict=True):
        assert {**one, "top": None} == {**other, "top": None}
        assert set(one) - {"top"} == {"choice", "sae", "position", "token", "values"}


def test_default_sample_every_follows_measured_cost(http, chat) -> None:
    measured = watched(http, chat)
    assert measured["sample_every"] >= 1
    same(tops(measured), tops(watched(http, chat, sample_every=measured["sample_every"])))


def test_stream_reports_sample_every(http, chat) -> None:
    body = {**chat, "activations": {**WATCH, "sample_every": 3}}
    parts = [chunk["millm"] for chunk in events(http, CHAT, body) if "millm" in chunk]
    assert {part["sample_every"] for part in parts} == {3}
    assert "tokens_steered" in parts[-1]
    joined = [entry for part in parts for entry in part.get("activations", ())]
    assert joined == full(http, CHAT, body)["millm"]["activations"]


def test_sample_every_is_reported_without_samples(http, chat) -> None:
    extension = watched(http, chat, tokens="generated", sample_every=1000)
    assert extension["sample_every"] == 1000
    assert len(extension["activations"]) == chat["max_tokens"] - 1
    assert not tops(extension)


def test_named_features_have_no_top_or_sample_every(http, chat) -> None:
    extension = watched(http, chat, top_k=0, features=[3])
    assert "sample_every" not in extension
    assert all(len(entry["values"]) == 1 and "top" not in entry for entry in extension["activations"])


@pytest.mark.parametrize("bad", [0, -1, 1.5, "x", 1001, True, []])
def test_invalid_sample_every_is_rejected_by_name(http, chat, bad) -> None:
    answer = http.post(CHAT, json={**chat, "activations": {**WATCH, "sample_every": bad}})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "activations.sample_every")
    assert answer.json()["error"]["message"].startswith("`activations.sample_every`")


def test_nan_is_rejected(http, chat) -> None:
    body = f'{{"model": "{chat["model"]}", "messages": [], "activations": {{"top_k": 1, "sample_every": NaN}}}}'
    answer = http.post(CHAT, content=body, headers={"content-type": "application/json"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_value")


def test_sample_every_needs_top_k(http, chat) -> None:
    answer = http.post(CHAT, json={**chat, "activations": {"features": [3], "sample_every": 2}})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "activations.sample_every")
    assert "top_k" in answer.json()["error"]["message"]
