"""The status: model, SAEs, load, and a server without a model."""

from typing import Any

import httpx
import pytest
from starlette.testclient import TestClient

from millm.api.app import create_app
from tests.fixtures.bare import bare_state
from tests.fixtures.process import Server
from tests.fixtures.tiny import FEATURES, LAYERS, WIDTH


@pytest.fixture
def loading() -> TestClient:
    """A server before its model is loaded."""
    return TestClient(create_app(bare_state(max_queue=1)), base_url="http://localhost")


def status(api: httpx.Client) -> dict[str, Any]:
    answer = api.get("/api/status")
    assert answer.status_code == 200
    return answer.json()


def test_status_of_model_and_saes(api: httpx.Client, server: Server) -> None:
    told = status(api)
    assert (told["status"], told["degraded"], told["steering"]) == ("ready", None, None)
    facts = told["model"]["facts"]
    assert (told["model"]["name"], facts["layers"], facts["width"]) == (server.model, LAYERS, WIDTH)
    assert {"runner", "runner_reason", "weights", "slots"} <= facts.keys()
    (sae,) = told["saes"]
    assert (sae["sae"], sae["features"]) == ("tiny", FEATURES)
    assert sae["sample_every"] >= 1
    assert "pid" not in str(told)


def test_running_and_waiting_add_up(api: httpx.Client, server: Server, chat: dict[str, Any]) -> None:
    slots = status(api)["model"]["facts"]["slots"]
    many = slots + 9
    body = {**chat, "n": many, "max_tokens": 200, "stream": True, "logit_bias": {"2": -100}}
    with httpx.stream("POST", f"{server.base_url}/chat/completions", json=body) as answer:
        lines = answer.iter_lines()  # dropped, it would close the connection
        next(lines)
        busy = status(api)
    assert (busy["running"], busy["in_flight"]) == (slots, busy["running"] + busy["waiting"])
    assert many - 9 <= busy["in_flight"] <= many


def test_status_without_a_model(loading: TestClient) -> None:
    told = loading.get("/api/status").json()
    assert (told["status"], told["model"], told["saes"], told["in_flight"]) == ("loading", None, [], 0)
    ready = loading.get("/readyz")
    assert (ready.status_code, ready.json()) == (503, {"status": "loading", "degraded": None})
    assert loading.get("/api/steering").json()["steering"] is None
    refused = loading.put("/api/steering", json={"profile": "push"})
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "model_not_loaded")
