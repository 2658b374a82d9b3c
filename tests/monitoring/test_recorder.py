"""The monitor of a real server equals a plain hook in responses, events and history."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest
from websockets.sync.client import connect

from tests.fixtures.close import assert_close
from tests.fixtures.inside import Inside
from tests.monitoring.reference_hook import MONITORED, complete

PROMPTS = [[5, 9, 30, 77, 120], [40, 41, 42], [200, 11, 60, 61, 62, 63, 64, 65, 66]]


@contextmanager
def listening(inside: Inside) -> Iterator[list[dict[str, Any]]]:
    """Events received during the block, up to the last request's end."""
    received: list[dict[str, Any]] = []
    with connect(f"{inside.url.replace('http', 'ws')}/api/events", max_size=None) as socket:
        assert json.loads(socket.recv(5))[0]["type"] == "hello"
        yield received
        while sum(event["type"] == "request" for event in received) < len(PROMPTS):
            received += json.loads(socket.recv(5))


def test_response_events_and_history_equal_reference_hook(inside: Inside, api, hooked) -> None:
    """Three requests in one batch, each with its own watches besides the monitor's."""
    api.put("/api/monitor", json={"watch": [MONITORED]}).raise_for_status()
    own = {"features": [3, 11], "tokens": "generated"}
    with listening(inside) as received, ThreadPoolExecutor(3) as threads:
        answers = [each.json() for each in threads.map(lambda ids: complete(api, ids, activations=own), PROMPTS)]
    for prompt, answer in zip(PROMPTS, answers, strict=True):
        expected = hooked.activations(prompt)
        inline = answer["millm"]["activations"]
        assert [entry["position"] for entry in inline] == list(range(len(prompt), len(expected)))
        assert_close([entry["values"] for entry in inline], [[row[3], row[11]] for row in expected[len(prompt) :]])
        assert all("top" not in entry for entry in inline)
        result = api.get(f"/api/requests/{answer['id']}").json()
        remembered = result["activations"]
        assert [entry["position"] for entry in remembered] == list(range(len(expected)))
        assert_close([entry["values"] for entry in remembered], [[row[40], row[3]] for row in expected])
        for entry, row in zip(remembered, expected, strict=True):
            assert_close([value for _, value in entry["top"]], sorted(row, reverse=True)[:2])
        assert [entry["token"] is None for entry in remembered] == [
            index < len(prompt) for index in range(len(expected))
        ]
        live = [event for event in received if event["type"] == "activations" and event["request_id"] == answer["id"]]
        keys = ("position", "values", "top", "features", "sae", "index")
        assert [{key: e[key] for key in keys} for e in live] == [{key: e[key] for key in keys} for e in remembered]
        assert [entry["values"][0] for entry in inline] == [e["values"][1] for e in remembered[len(prompt) :]]
        (row,) = [
            event["request"]
            for event in received
            if event["type"] == "request" and event["request"]["id"] == answer["id"]
        ]
        assert row == result["request"]


def test_monitoring_does_not_change_embeddings(api) -> None:
    body = {"model": "tiny-llama", "input": ["The sea is wide.", "one two"], "encoding_format": "base64"}
    bare = api.post("/v1/embeddings", json=body).json()
    api.put("/api/monitor", json={"watch": [MONITORED]}).raise_for_status()
    watched = api.post("/v1/embeddings", json=body).json()
    assert watched == bare
    result = api.get("/api/requests", params={"endpoint": "/v1/embeddings"}).json()["requests"]
    assert [row["watched"] and row["watched"][0]["tokens"] for row in result] == [bare["usage"]["prompt_tokens"], []]
    beside = api.post("/v1/embeddings", json={**body, "activations": {"features": [11]}}).json()
    assert beside["data"] == bare["data"]
    assert {len(entry["values"]) for entry in beside["millm"]["activations"]} == {1}


def test_unwatched_request_has_only_a_record(api) -> None:
    answer = complete(api, PROMPTS[0], {"User-Agent": "OpenAI/Python 3"}, profile="push").json()
    result = api.get(f"/api/requests/{answer['id']}").json()
    row = result["request"]
    assert result["activations"] == []
    receipt, usage = answer["millm"], answer["usage"]
    assert (row["profile"], row["steering"]) == ("push", receipt["steering"])
    assert (row["tokens_steered"], row["delta_norm_ratio"]) == (receipt["tokens_steered"], receipt["delta_norm_ratio"])
    assert (row["prompt_tokens"], row["completion_tokens"]) == (usage["prompt_tokens"], usage["completion_tokens"])
    assert (row["end"], row["client"], row["streamed"], row["model"]) == (
        "length",
        "openai-python",
        False,
        "tiny-llama",
    )
    assert 0 < row["first_token_seconds"] <= row["seconds"]


def test_request_watch_is_in_history(api) -> None:
    answer = complete(api, PROMPTS[0], activations={"features": [3], "tokens": "all"}).json()
    remembered = api.get(f"/api/requests/{answer['id']}").json()["activations"]
    assert [entry["values"] for entry in remembered] == [entry["values"] for entry in answer["millm"]["activations"]]


def test_cancelled_and_rejected_requests_are_recorded(api) -> None:
    body = {"model": "tiny-llama", "prompt": [5, 6], "max_tokens": 200, "stream": True, "ignore_eos": True}
    with api.stream("POST", "/v1/completions", json=body) as answer:
        next(answer.iter_lines())
    ends = []
    for _ in range(100):
        ends = [row["end"] for row in api.get("/api/requests").json()["requests"]]
        if ends:
            break
    assert ends in (["cancelled"], ["length"]), "it may have been as fast as the client"
    refused = complete(api, PROMPTS[0], {"X-Millm-Source": "<b>"})
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "x-millm-source")


def test_history_lists_and_deletes(api) -> None:
    for number in range(10):
        complete(api, PROMPTS[1], {"X-Millm-Source": f"lab {number % 2}"}, max_tokens=1).raise_for_status()
    rows = api.get("/api/requests").json()["requests"]
    assert len(rows) == 8
    assert [row["began"] for row in rows] == sorted((row["began"] for row in rows), reverse=True)
    page = api.get("/api/requests", params={"limit": 3, "before": rows[1]["id"]}).json()["requests"]
    assert page == rows[2:5]
    assert {r["client"] for r in api.get("/api/requests", params={"client": "lab 1"}).json()["requests"]} == {"lab 1"}
    assert api.delete(f"/api/requests/{rows[0]['id']}").json() == {"requests": 1}
    gone = api.get(f"/api/requests/{rows[0]['id']}")
    assert (gone.status_code, gone.json()["error"]["code"]) == (404, "request_not_found")
    assert api.delete("/api/requests").json() == {"requests": 7}


def test_statistics_and_exports_of_history(api) -> None:
    api.put("/api/monitor", json={"watch": [MONITORED]}).raise_for_status()
    ids = [complete(api, prompt).json()["id"] for prompt in PROMPTS]
    observed = [entry["values"][0] for id in ids for entry in api.get(f"/api/requests/{id}").json()["activations"]]
    result = api.get("/api/monitor/statistics", params={"feature": 40}).json()
    (one,) = result["features"]
    assert (result["requests"], one["tokens"], one["fired"]) == (3, len(observed), sum(value > 0 for value in observed))
    assert one["mean"] == pytest.approx(sum(observed) / len(observed))
    assert (one["largest"] or {"value": 0})["value"] == max(observed)
    lines = api.get("/api/monitor/export", params={"format": "jsonl"}).text.splitlines()
    assert len(lines) == len(observed)
    file = api.get("/api/monitor/export", params={"format": "csv", "feature": 40})
    assert sum(",watched" in line for line in file.text.splitlines()) == len(observed)
    assert "attachment" in file.headers["content-disposition"]


# ------------------------------------------------------------------------------------------------ what is to be watched


def test_monitor_config_survives_a_restart(inside: Inside, api) -> None:
    later = {"sae": "not/here", "features": [1], "when": "after"}
    result = api.put("/api/monitor", json={"watch": [MONITORED, later], "follow_profile": True}).json()
    assert [(one["sae"], one["active"]) for one in result["watch"]] == [("tiny", True), ("not/here", False)]
    assert api.get("/api/monitor").json() == result
    again = type(inside.state.monitor)(
        inside.state.settings, inside.state.events, inside.state.hub.database, inside.state.meter
    )
    assert again.config == inside.state.monitor.config
    assert complete(api, PROMPTS[0]).status_code == 200


@pytest.mark.parametrize(
    ("watch", "message_part"),
    [
        ([{"sae": "tiny", "features": [96]}], "0..95"),
        ([{"sae": "tiny"}], "top_k"),
        ([{"sae": "tiny", "top_k": 97}], "at most 96"),
        ([{"sae": "tiny", "features": [1]}, {"sae": "tiny", "top_k": 1}], "twice"),
        ([{"sae": "tiny", "features": list(range(65))}], "64"),
        ([{"sae": "tiny", "features": [1], "tokens": "some"}], "tokens"),
        ([{"features": [1]}], "sae"),
    ],
)
def test_invalid_watches_are_rejected(api, watch: list[dict[str, Any]], message_part: str) -> None:
    before = api.get("/api/monitor").json()
    refused = api.put("/api/monitor", json={"watch": watch})
    assert refused.status_code == 422
    assert message_part in refused.json()["error"]["message"]
    assert api.get("/api/monitor").json() == before


def test_activations_of_several_saes_as_a_list(api) -> None:
    own = {"features": [3], "tokens": "all"}
    one, several = (
        complete(api, PROMPTS[0], activations=requested).json() for requested in (own, [{**own, "sae": "tiny"}])
    )
    assert one["millm"]["activations"] == several["millm"]["activations"]
    twice = complete(api, PROMPTS[0], activations=[own, own])
    assert (twice.status_code, twice.json()["error"]["param"]) == (400, "activations")
    for bad in ([], [own] * 9, [{"features": "x"}], "x", 3):
        assert complete(api, PROMPTS[0], activations=bad).status_code == 400
