"""After the engine disabled the SAE for lack of memory, the base model answers and the response reports it."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from millm.engine.messages import EngineDegraded, SteeringReceipt
from millm.generation.output import ChoiceEnd, OutputDelta, build_extension
from millm.lifecycle.selection import Selection
from tests.fixtures.inside import Inside, serving

REASON = "the SAE was turned off: the device ran out of memory"
PUSH = {"features": [{"index": 3, "strength": 6.0}]}


@pytest.fixture(scope="module")
def inside(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, tiny_sae: Path) -> Iterator[Inside]:
    with serving(tiny_model, tiny_sae, tmp_path_factory.mktemp("degraded")) as inside:
        yield inside


@pytest.fixture(scope="module")
def http(inside: Inside) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=inside.base_url, timeout=30) as client:
        yield client


@pytest.fixture(scope="module")
def base(inside: Inside, http: httpx.Client) -> str:
    """The base model's answer; then `push` is activated and the engine degrades."""
    answer = post(http, steering=None).json()
    assert httpx.put(f"{inside.url}/api/steering", json={"profile": "push"}).status_code == 200
    assert post(http).json()["millm"]["profile"] == "push"
    inside.call(inside.state.engine._handle_events, [EngineDegraded(reason=REASON)])
    return answer["choices"][0]["message"]["content"]


def post(http: httpx.Client, **extra: Any) -> httpx.Response:
    greeting = [{"role": "user", "content": "Tell me about the sea."}]
    chat = {"model": "tiny-llama", "messages": greeting, "temperature": 0, "max_tokens": 12}
    return http.post("/chat/completions", json={**chat, **extra})


def check(inside: Inside, http: httpx.Client, base: str) -> None:
    """Requests that follow the active steering get the base model; requests for the SAE are rejected."""
    result = httpx.get(f"{inside.url}/api/status").json()
    assert (result["degraded"], result["saes"]) == (REASON, [])
    ready = httpx.get(f"{inside.url}/readyz")
    assert (ready.status_code, ready.json()["degraded"]) == (200, REASON)
    following = post(http).json()
    assert following["choices"][0]["message"]["content"] == base
    assert following["millm"] == {
        "profile": None, "steering": None, "tokens_steered": 0, "delta_norm_ratio": 0.0, "degraded": REASON,
    }  # fmt: skip
    for nothing in (None, {}):
        assert "degraded" not in post(http, steering=nothing).json()["millm"]
    extra: list[dict[str, Any]] = [
        {"profile": "push"},
        {"model": "tiny-llama:push"},
        {"steering": PUSH},
        {"activations": {"top_k": 3}},
    ]
    for fields in extra:
        refused = post(http, **fields)
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "sae_detached")
        assert REASON in refused.json()["error"]["message"]
        assert refused.headers["x-should-retry"] == "false"
    assert [card["id"] for card in http.get("/models").json()["data"]] == ["tiny-llama"]
    activated = httpx.put(f"{inside.url}/api/steering", json={"profile": "hold"})
    assert (activated.status_code, activated.json()["error"]["code"]) == (503, "sae_detached")


def test_degraded_server_reports_no_steering(inside: Inside, http: httpx.Client, base: str) -> None:
    check(inside, http, base)


def test_degradation_survives_an_engine_restart(inside: Inside, http: httpx.Client, base: str) -> None:
    inside.kill_engine()
    while httpx.get(f"{inside.url}/readyz").status_code != 200:
        time.sleep(0.05)
    check(inside, http, base)


def test_stream_reports_degradation(http: httpx.Client, base: str) -> None:
    assert f'"degraded":"{REASON}"' in post(http, stream=True).text


def test_steering_dropped_midway_is_reported(inside: Inside) -> None:
    """The receipt of one choice is enough."""
    assert inside.state.model
    ended = [
        OutputDelta(
            choice,
            end=ChoiceEnd(
                "stop",
                5,
                SteeringReceipt(fingerprint="f", tokens_steered=3, delta_norm_ratio=0.5, degraded=degraded),
                0,
            ),
        )
        for choice, degraded in ((0, None), (1, REASON))
    ]
    assert build_extension(Selection(inside.state.model), ended, watching=False, sample_every=None).degraded == REASON
