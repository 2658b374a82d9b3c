"""The active steering over HTTP: read, change, follow, errors, and an engine crash."""

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
    """(text, receipt rounded: the last digits depend on the batch)."""
    answer = api.post("/v1/chat/completions", json={**chat, **changes}).raise_for_status().json()
    receipt = answer["millm"]
    return answer["choices"][0]["message"]["content"], {
        **receipt, "delta_norm_ratio": round(receipt["delta_norm_ratio"], 4)
    }  # fmt: skip


def put(api: httpx.Client, wanted: Any) -> Any:
    return api.put("/api/steering", content=json.dumps(wanted)).raise_for_status().json()


def core(told: dict[str, Any]) -> dict[str, Any]:
    """The state without version and measured values."""
    return {name: value for name, value in told.items() if name not in ("version", "undo", "redo", "hooks", "warnings")}


def test_active_profile_steers_requests_without_steering(api: httpx.Client, chat: dict[str, Any]) -> None:
    base, pushed, held = ask(api, chat), ask(api, chat, profile="push"), ask(api, chat, profile="hold")
    told = put(api, {"profile": "push"})
    assert told == api.get("/api/steering").json()
    assert (told["profile"], told["fingerprint"]) == ("push", pushed[1]["steering"])
    assert api.get("/api/status").json()["steering"] == {
        "profile": "push", "fingerprint": told["fingerprint"], "on": True, "is_modified": False,
    }  # fmt: skip
    assert ask(api, chat) == pushed
    assert ask(api, chat, profile="hold") == held
    assert ask(api, chat, model=f"{chat['model']}:hold") == held
    assert ask(api, chat, steering=None) == base
    assert put(api, {"profile": "hold"})["fingerprint"] == held[1]["steering"]
    assert ask(api, chat) == held
    assert put(api, None)["steering"] is None
    assert ask(api, chat) == base


def test_unnamed_steering_can_be_active(api: httpx.Client, chat) -> None:
    asked = ask(api, chat, steering=PUSH)
    told = put(api, PUSH)
    assert (told["profile"], told["fingerprint"]) == (None, asked[1]["steering"])
    assert ask(api, chat) == asked
    assert core(put(api, told["steering"])) == core(told)
    assert put(api, {})["steering"] is None


# ---------------------------------------------------------------------------------------------------- single knobs


def patch(api: httpx.Client, **change: Any) -> dict[str, Any]:
    told: dict[str, Any] = api.patch("/api/steering", json=change).raise_for_status().json()
    return told


def same_as(api: httpx.Client, chat: dict[str, Any], *features: dict[str, Any]) -> bool:
    """Whether a request without steering is answered as with these features."""
    return ask(api, chat) == ask(api, chat, steering={"features": features} if features else None)


TWO = {"index": 3, "strength": 6.0}, {"index": 9, "strength": -4.0}


def test_features_are_changed_muted_and_soloed(api: httpx.Client, chat: dict[str, Any]) -> None:
    put(api, {"features": TWO})
    one, two = TWO
    patch(api, features=[{"index": 9, "strength": 2.5}])
    assert same_as(api, chat, one, {"index": 9, "strength": 2.5})
    patch(api, features=[{"index": 9, "strength": -4.0}])
    assert patch(api, features=[{"index": 3, "muted": True}])["features"][0]["is_heard"] is False
    assert same_as(api, chat, two)
    patch(api, features=[{"index": 3, "muted": False}, {"index": 12, "strength": 1.0, "solo": True}])
    assert same_as(api, chat, {"index": 12, "strength": 1.0})
    patch(api, remove=[{"index": 12}])
    assert same_as(api, chat, one, two)
    off = patch(api, on=False)
    assert (off["fingerprint"], [knob["is_heard"] for knob in off["features"]]) == (None, [False, False])
    assert same_as(api, chat)
    assert core(patch(api, on=True))["fingerprint"] is not None
    assert same_as(api, chat, one, two)
    assert patch(api, remove=[{"index": 3}, {"index": 9}])["steering"] is None
    assert same_as(api, chat)


def test_every_change_can_be_undone_and_redone(api: httpx.Client) -> None:
    put(api, {"profile": "push"})
    steps = [api.get("/api/steering").json()]
    for strength in range(1, 60):
        steps.append(
            patch(api, features=[{"index": 3, "strength": strength}, {"index": 4, "muted": strength % 2 == 0}])
        )
    assert [step["undo"] for step in steps][-1] == 50
    assert [(steps[at]["is_modified"], steps[at]["profile"]) for at in (0, 1)] == [(False, "push"), (True, "push")]
    for step in reversed(steps[-51:-1]):
        assert core(api.post("/api/steering/undo").raise_for_status().json()) == core(step)
    refused = api.post("/api/steering/undo")
    assert (refused.status_code, refused.json()["error"]["code"]) == (422, "invalid_value")
    for step in steps[-50:]:
        assert core(api.post("/api/steering/redo").raise_for_status().json()) == core(step)
    assert api.post("/api/steering/redo").status_code == 422
    api.post("/api/steering/undo")
    patch(api, on=False)
    assert api.post("/api/steering/redo").status_code == 422  # another way was taken


def test_concurrent_change_is_steering_outdated(api: httpx.Client) -> None:
    version = put(api, PUSH)["version"]
    first = patch(api, version=version, features=[{"index": 3, "strength": 1}])
    assert first["version"] == version + 1
    for ask_it in (
        lambda: api.patch("/api/steering", json={"version": version, "on": False}),
        lambda: api.put("/api/steering", json={"version": version, "profile": "hold"}),
        lambda: api.post("/api/steering/undo", json={"version": version}),
    ):
        refused = ask_it()
        assert (refused.status_code, refused.json()["error"]["code"]) == (409, "steering_outdated")
    assert api.get("/api/steering").json() == first


def test_every_unit_is_reported_with_warnings(api: httpx.Client) -> None:
    (sae,) = api.get("/api/attachments").json()["attachments"]
    norm = sae["residual_norm"]
    told = put(api, {"features": [{"index": 3, "strength": 0.5, "unit": "norm"}, {"index": 5, "mode": "ablate"}]})
    knob, ablated = told["features"]
    assert (knob["raw"], knob["norm"]) == (pytest.approx(norm / 2), pytest.approx(0.5))
    assert (ablated["raw"], ablated["norm"]) == (None, None)
    (hook,) = told["hooks"]
    assert (hook["hook_point"], hook["residual_norm"], hook["varies"]) == (sae["hook_point"], norm, True)
    assert (hook["delta_norm"], hook["delta_share"]) == (
        pytest.approx(norm / 2, rel=1e-4),
        pytest.approx(0.5, rel=1e-4),
    )
    assert told["warnings"] == []
    loud = patch(api, features=[{"index": 3, "strength": 1.6}])["warnings"]
    assert len(loud) == 2
    assert all("1.6 × the residual norm" in warning for warning in loud)


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"features": [{"index": 96}]}, 422),
        ({"features": [{"index": 3, "strength": "much"}]}, 422),
        ({"features": [{"index": 3, "unit": "percent"}]}, 422),
        ({"features": [{"strength": 3}]}, 422),
        ({"features": [{"index": 3, "muted": "yes"}]}, 422),
        ({"remove": [{"index": 44}]}, 422),
        ({"on": 1}, 422),
        ({"of": True}, 422),
        ({"features": [{"index": 1, "strength": 1}, {"index": 2, "strength": 1e9}]}, 422),
        ({"version": "latest"}, 422),
    ],
)
def test_invalid_change_changes_nothing(api: httpx.Client, change: dict[str, Any], status: int) -> None:
    before = put(api, {"profile": "hold"})
    assert api.patch("/api/steering", json=change).status_code == status
    assert api.get("/api/steering").json() == before


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
def test_inapplicable_steering_changes_nothing(api, chat, wanted, status, code, param) -> None:
    before = put(api, {"profile": "hold"})
    refused = api.put("/api/steering", json=wanted)
    error = refused.json()["error"]
    assert (refused.status_code, error["code"], error["param"]) == (status, code, param)
    assert set(error) == {"message", "type", "param", "code"}
    assert api.get("/api/steering").json() == before


@pytest.mark.parametrize(("content", "status"), [(b"{", 400), (b'{"profile": NaN}', 400), (b"", 422)])
def test_malformed_json_is_rejected(api: httpx.Client, content: bytes, status: int) -> None:
    refused = api.put("/api/steering", content=content)
    assert (refused.status_code, refused.json()["error"]["code"]) == (status, "invalid_value")


@pytest.fixture
def fragile(tmp_path: Path, tiny_model: Path, tiny_sae: Path) -> Iterator[Inside]:
    """A separate server whose engine may crash."""
    with serving(tiny_model, tiny_sae, tmp_path) as inside:
        yield inside


def test_active_steering_survives_an_engine_crash(fragile: Inside, chat: dict[str, Any]) -> None:
    with httpx.Client(base_url=fragile.url, timeout=30) as api:
        told = put(api, {"profile": "push"})
        before = ask(api, chat)
        fragile.kill_engine()
        assert put(api, {"profile": "hold"})["profile"] == "hold"  # also while the engine is away
        assert core(put(api, {"profile": "push"})) == core(told)
        while api.get("/readyz").status_code != 200:
            time.sleep(0.05)
        assert core(api.get("/api/steering").json()) == core(told)
        assert ask(api, chat) == before
