"""What is active on the server: looked at, changed, followed, refused, and kept when the engine dies."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.fixtures.inside import Inside, serving

PUSH = {"features": [{"index": 3, "strength": 6.0}]}
"""What the profile `push` says."""


def ask(api: httpx.Client, chat: dict[str, Any], **changes: Any) -> tuple[str, dict[str, Any]]:
    """→ the text and the receipt, without the last digits: they depend on what else was in a batch."""
    answer = api.post("/v1/chat/completions", json={**chat, **changes}).raise_for_status().json()
    receipt = answer["millm"]
    return answer["choices"][0]["message"]["content"], {
        **receipt, "delta_norm_ratio": round(receipt["delta_norm_ratio"], 4)
    }  # fmt: skip


def put(api: httpx.Client, wanted: Any) -> Any:
    return api.put("/api/steering", content=json.dumps(wanted)).raise_for_status().json()


def test_a_profile_made_active_steers_who_asks_for_nothing(api: httpx.Client, chat: dict[str, Any]) -> None:
    base, pushed, held = ask(api, chat), ask(api, chat, profile="push"), ask(api, chat, profile="hold")
    told = put(api, {"profile": "push"})
    assert told == api.get("/api/steering").json()
    assert (told["profile"], told["fingerprint"]) == ("push", pushed[1]["steering"])
    assert api.get("/api/status").json()["steering"] == {"profile": "push", "fingerprint": told["fingerprint"]}
    assert ask(api, chat) == pushed
    assert ask(api, chat, profile="hold") == held
    assert ask(api, chat, model=f"{chat['model']}:hold") == held
    assert ask(api, chat, steering=None) == base
    assert put(api, {"profile": "hold"})["fingerprint"] == held[1]["steering"]
    assert ask(api, chat) == held
    assert put(api, None) is None
    assert ask(api, chat) == base


def test_a_steering_without_a_name_can_be_active_and_is_told_as_it_was_put(api: httpx.Client, chat) -> None:
    asked = ask(api, chat, steering=PUSH)
    told = put(api, PUSH)
    assert (told["profile"], told["fingerprint"]) == (None, asked[1]["steering"])
    assert ask(api, chat) == asked
    assert put(api, told["steering"]) == told
    assert put(api, {}) is None


@pytest.mark.parametrize(
    ("wanted", "status", "code", "param"),
    [
        ({"profile": "nope"}, 404, "profile_not_found", "profile"),
        ({"profile": 7}, 422, "invalid_value", "profile"),
        ({"profile": "push", **PUSH}, 422, "invalid_value", None),
        ({"features": [{"index": 96, "strength": 1}]}, 422, "invalid_steering", "steering.features"),
        ({"features": [{"index": -1}]}, 422, "invalid_value", "features.0.index"),
        ({"features": [{"index": 1, "strength": 1, "sae": "nope"}]}, 422, "invalid_steering", "steering"),
        ({"feature": []}, 422, "invalid_value", "feature"),
        ([], 422, "invalid_value", None),
    ],
)
def test_what_cannot_be_applied_is_refused_and_changes_nothing(api, chat, wanted, status, code, param) -> None:
    before = put(api, {"profile": "hold"})
    refused = api.put("/api/steering", json=wanted)
    error = refused.json()["error"]
    assert (refused.status_code, error["code"], error["param"]) == (status, code, param)
    assert set(error) == {"message", "type", "param", "code"}
    assert api.get("/api/steering").json() == before


@pytest.mark.parametrize(("content", "status"), [(b"{", 400), (b'{"profile": NaN}', 400), (b"", 422)])
def test_what_is_no_json_is_refused(api: httpx.Client, content: bytes, status: int) -> None:
    refused = api.put("/api/steering", content=content)
    assert (refused.status_code, refused.json()["error"]["code"]) == (status, "invalid_value")


@pytest.fixture
def fragile(tmp_path: Path, tiny_model: Path, tiny_sae: Path) -> Iterator[Inside]:
    """A server of our own, to break."""
    with serving(tiny_model, tiny_sae, tmp_path) as inside:
        yield inside


def test_what_is_active_outlives_the_engine(fragile: Inside, chat: dict[str, Any]) -> None:
    with httpx.Client(base_url=fragile.url, timeout=30) as api:
        told = put(api, {"profile": "push"})
        before = ask(api, chat)
        fragile.kill_engine()
        assert put(api, {"profile": "hold"})["profile"] == "hold"  # also while the engine is away
        assert put(api, {"profile": "push"}) == told
        while api.get("/readyz").status_code != 200:
            time.sleep(0.05)
        assert api.get("/api/steering").json() == told
        assert ask(api, chat) == before
