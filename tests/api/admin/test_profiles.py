"""Profiles over HTTP: add, change, rename, delete and activate."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from millm.events import Event, ProfilesChanged
from millm.lifecycle.selection import build_active
from millm.lifecycle.steering import activate
from millm.profiles.active import ActiveSteeringState, FeatureKey
from millm.profiles.schema import SteeringRequest
from millm.status import read_desired
from tests.fixtures.inside import Inside, serving
from tests.lifecycle.asking import text
from tests.lifecycle.test_restore import read_only


@pytest.fixture(scope="module")
def inside(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, tiny_sae: Path) -> Iterator[Inside]:
    with serving(tiny_model, tiny_sae, tmp_path_factory.mktemp("home")) as running:
        yield running


@pytest.fixture
def api(inside: Inside) -> Iterator[httpx.Client]:
    """Restore the profiles `push` and `hold`, and no active steering."""
    with httpx.Client(base_url=f"{inside.url}/api", timeout=30, trust_env=False) as client:
        kept = {name: client.get(f"/profiles/{name}").json()["profile"] for name in ("push", "hold")}
        yield client
        assert client.post("/profiles/deactivate").status_code == 200
        for entry in client.get("/profiles").json()["profiles"]:
            client.delete(f"/profiles/{quote(entry['name'])}")
        for profile in kept.values():
            assert client.post("/profiles", json=profile).status_code == 201


def profile(name: str, strength: float = 4.0, **fields: Any) -> dict[str, Any]:
    return {"name": name, "features": [{"index": 5, "strength": strength}], **fields}


def steer(inside: Inside, asked: SteeringRequest, muted: frozenset[FeatureKey] = frozenset()) -> None:
    async def activated() -> None:
        await activate(inside.state, build_active(inside.state, ActiveSteeringState(None, asked, muted=muted)))

    inside.run(activated())


def refused(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["code"]


def names(api: httpx.Client, **query: Any) -> list[str]:
    return [entry["name"] for entry in api.get("/profiles", params=query).json()["profiles"]]


def situation(inside: Inside, api: httpx.Client) -> tuple[Any, ...]:
    """The state that a rejected change must not change."""
    rows = inside.state.hub.database.read("SELECT name, body, updated FROM profiles ORDER BY id")
    return rows, inside.state.active, read_desired(inside.state.hub.database), api.get("/profiles").json()


def test_profile_life_cycle(api: httpx.Client) -> None:
    made = api.post("/profiles", json=profile("Bright", description="Light.", tags=["day"], model="tiny-llama"))
    assert made.status_code == 201
    entry = made.json()
    assert (entry["name"], entry["features"], entry["model"]) == ("Bright", 1, "tiny-llama")
    assert (entry["misfit"], entry["model_id"], entry["is_active"]) == (None, "tiny-llama:Bright", False)
    whole = api.get("/profiles/bright").json()
    assert whole["entry"] == entry
    assert (
        api.put("/profiles/bright", json={**whole["profile"], "description": "Dark."}).json()["description"] == "Dark."
    )
    assert (names(api), names(api, search="DARK"), names(api, search="day")) == (
        ["Bright", "hold", "push"], ["Bright"], ["Bright"],
    )  # fmt: skip
    copied = api.post("/profiles/bright/duplicate")
    assert (copied.status_code, copied.json()["name"]) == (201, "Bright (2)")
    assert api.post("/profiles/bright (2)/duplicate").json()["name"] == "Bright (3)"
    assert api.post("/profiles/bright/duplicate", json={"name": "Other"}).json()["name"] == "Other"
    assert api.post("/profiles/Other/rename", json={"name": "OTHER"}).json()["name"] == "OTHER"
    assert names(api, limit=2, offset=1) == ["Bright (2)", "Bright (3)"]
    assert api.get("/profiles", params={"search": "bright", "limit": 1}).json()["total"] == 3
    assert api.delete("/profiles/other").status_code == 200
    assert refused(api.get("/profiles/other")) == (404, "profile_not_found")


def test_names_ignore_case_and_composition(api: httpx.Client) -> None:
    composed, apart = "Caf\u00e9 \u00c5", "Cafe\u0301 A\u030a"
    assert api.post("/profiles", json=profile(composed)).status_code == 201
    for same in (composed, apart, composed.upper(), apart.lower()):
        assert refused(api.post("/profiles", json=profile(same))) == (409, "profile_name_taken")
        assert api.get(f"/profiles/{quote(same)}").json()["profile"]["name"] == composed
    assert refused(api.post("/profiles/push/rename", json={"name": "HOLD"})) == (409, "profile_name_taken")
    assert refused(api.put("/profiles/push", json=profile("Hold"))) == (409, "profile_name_taken")


@pytest.mark.parametrize(
    "name",
    ["🎉 fête", "مرحبا", "שלום", "日本語の設定", "नमस्ते", "a:b", "50% & more?#", "x" * 128, "é" * 128, "." * 3 + "x"],
)
def test_names_of_any_script_are_accepted(api: httpx.Client, name: str) -> None:
    assert api.post("/profiles", json=profile(name)).status_code == 201
    assert api.get(f"/profiles/{quote(name, safe='')}").json()["profile"]["name"] == name
    assert api.post(f"/profiles/{quote(name, safe='')}/activate").json()["is_active"]


@pytest.mark.parametrize(
    "name", ["", "x" * 129, "a\nb", "a\x00b", "a\u202eb", "\u2066a", " a", "a/b", "a\\b", "..", 7, None]
)
def test_invalid_names_are_rejected(inside: Inside, api: httpx.Client, name: object) -> None:
    before = situation(inside, api)
    for answer in (
        api.post("/profiles", json={**profile("x"), "name": name}),
        api.post("/profiles/push/rename", json={"name": name}),
        api.post("/profiles/save", json={"name": name}),
    ):
        assert refused(answer) == (422, "invalid_value")
        assert answer.json()["error"]["param"] == "name"
    assert situation(inside, api) == before


def test_active_profile_is_deleted_only_by_force(inside: Inside, api: httpx.Client) -> None:
    plain = text(inside)
    assert api.post("/profiles/PUSH/activate").json()["is_active"]
    steered = text(inside)
    assert steered != plain
    before = situation(inside, api)
    assert refused(api.delete("/profiles/push")) == (409, "profile_active")
    assert situation(inside, api) == before
    assert api.delete("/profiles/push", params={"force": True}).status_code == 200
    assert (text(inside), inside.state.active, names(api)) == (plain, None, ["hold"])
    assert read_desired(inside.state.hub.database).profile is None
    assert api.post("/profiles", json=profile("push")).status_code == 201


def test_renamed_active_profile_stays_active(inside: Inside, api: httpx.Client) -> None:
    api.post("/profiles/push/activate")
    steered = text(inside)
    assert api.post("/profiles/push/rename", json={"name": "shove"}).json()["is_active"]
    assert (text(inside), read_desired(inside.state.hub.database).profile) == (steered, "shove")
    assert api.get("/profiles/shove").json()["entry"]["is_active"]
    assert api.post("/profiles/shove/rename", json={"name": "push"}).json()["is_active"]


def test_change_of_the_active_profile_is_atomic(inside: Inside, api: httpx.Client) -> None:
    api.post("/profiles/push/activate")
    changed = {"name": "push", "features": [{"index": 9, "strength": 30.0}]}
    assert api.put("/profiles/push", json=changed).json()["is_active"]
    wanted = text(inside, steering={"features": changed["features"]})
    assert text(inside) == wanted
    before = situation(inside, api)
    for misfitting in (
        {"features": [{"index": 96, "strength": 1.0}]},
        {"features": []},
        {"features": changed["features"], "model": "google/gemma-2-2b"},
        {"features": changed["features"], "saes": [{"repo_id": "a/b", "width": 7}]},
    ):
        assert api.put("/profiles/push", json={"name": "push", **misfitting}).status_code == 422
        assert situation(inside, api) == before
        assert text(inside) == wanted
    assert (
        api.put("/profiles/hold", json={"name": "hold", "features": [{"index": 96}]})
        .json()["misfit"]
        .startswith("feature 96")
    )


@pytest.mark.parametrize(
    ("method", "address", "body"),
    [
        ("PUT", "/push", {"name": "push", "features": [{"index": 9, "strength": 30.0}]}),
        ("POST", "/push/rename", {"name": "other"}),
        ("DELETE", "/push?force=true", None),
        ("POST", "/save", {"name": "push", "overwrite": True, "description": "again"}),
        ("POST", "/save", {"name": "new"}),
        ("POST", "", profile("new")),
        ("POST", "/hold/activate", None),
        ("POST", "/deactivate", None),
    ],
)
def test_failed_writes_change_nothing(
    inside: Inside, api: httpx.Client, method: str, address: str, body: object
) -> None:
    api.post("/profiles/push/activate")
    before, steered = situation(inside, api), text(inside)
    with read_only(inside):
        assert refused(api.request(method, f"/profiles{address}", json=body)) == (503, "not_stored")
    assert situation(inside, api) == before
    assert text(inside) == steered
    assert api.request(method, f"/profiles{address}", json=body).status_code < 300
    assert situation(inside, api) != before


def test_active_steering_is_saved_as_a_profile(inside: Inside, api: httpx.Client) -> None:
    """The saved profile is the same steering, bit for bit."""
    assert refused(api.post("/profiles/save", json={"name": "none"})) == (409, "conflict")
    knobs = {"features": [{"index": 3, "strength": 0.5, "unit": "norm"}, {"index": 7, "strength": 2, "mode": "clamp"}]}
    steer(inside, SteeringRequest.model_validate({**knobs, "skip": "bos"}))
    assert inside.state.active
    before, steered = inside.state.active, text(inside)
    saved = api.post(
        "/profiles/save", json={"name": "mine", "tags": ["t"], "watch": [{"index": 3}], "example_prompts": ["Hi"]}
    )
    assert (saved.status_code, saved.json()["is_active"], saved.json()["saes"]) == (201, True, ["tiny"])
    whole = api.get("/profiles/mine").json()["profile"]
    assert (whole["model"]["repo_id"], whole["watch"], whole["tags"]) == ("tiny-llama", [{"index": 3}], ["t"])
    facts = inside.state.saes["tiny"].facts
    (sae,) = whole["saes"]
    assert (sae["sha256"], sae["width"], sae["layer"]) == (facts.sha256, facts.features, facts.layer)
    assert sae["reference_norm"] == facts.residual_norm
    assert inside.state.active.steering == before.steering
    api.post("/profiles/deactivate")
    api.post("/profiles/mine/activate")
    assert inside.state.active.steering == before.steering
    assert text(inside) == steered
    assert refused(api.post("/profiles/save", json={"name": "MINE"})) == (409, "profile_name_taken")
    assert api.post("/profiles/save", json={"name": "MINE", "overwrite": True}).json()["name"] == "MINE"
    assert names(api) == ["hold", "MINE", "push"]


def test_watched_feature_of_an_unknown_sae_is_rejected(inside: Inside, api: httpx.Client) -> None:
    steer(inside, SteeringRequest.model_validate({"features": [{"index": 3, "strength": 6}]}))
    refused = api.post("/profiles/save", json={"name": "mine", "watch": [{"index": 3, "sae": "nope"}]})
    assert (refused.status_code, refused.json()["error"]["code"]) == (422, "invalid_profile")
    assert api.get("/profiles/mine").status_code == 404


def test_muted_features_are_not_saved_and_stay_muted(inside: Inside, api: httpx.Client) -> None:
    asked = SteeringRequest.model_validate({"features": [{"index": 3, "strength": 6}, {"index": 4, "strength": 6}]})
    steer(inside, asked, muted=frozenset({("tiny", 4)}))
    heard = text(inside)
    assert api.post("/profiles/save", json={"name": "heard"}).json()["features"] == 1
    assert inside.state.active
    assert (len(inside.state.active.request.features), inside.state.active.is_modified) == (2, True)
    assert text(inside) == heard
    api.post("/profiles/deactivate")
    assert text(inside, profile="heard") == heard


def test_profile_changes_are_published(inside: Inside, api: httpx.Client) -> None:
    async def heard_during(requests: list[tuple[str, str, object]]) -> list[Event]:
        with inside.state.events.subscribe() as listener:
            for method, address, body in requests:
                await asyncio.to_thread(api.request, method, f"/profiles{address}", json=body)
            return [letter.event for letter in await listener.receive_all()]

    events = inside.run(
        heard_during(
            [
                ("POST", "", profile("a")),
                ("POST", "/a/rename", {"name": "b"}),
                ("PUT", "/b", profile("b", 2.0)),
                ("POST", "", profile("B")),
                ("DELETE", "/b", None),
            ]
        )
    )
    assert [event for event in events if isinstance(event, ProfilesChanged)] == [
        ProfilesChanged(name="a", what="added"),
        ProfilesChanged(name="b", what="changed", was="a"),
        ProfilesChanged(name="b", what="changed"),
        ProfilesChanged(name="b", what="deleted"),
    ]


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"features": []}, "name"),
        (profile("x", color="red"), "color"),
        ({"name": "x", "features": [{"index": -1}]}, "features.0.index"),
        ({"name": "x", "version": "2"}, "version"),
        ({"name": "x", "saes": [{"name": "a"}, {"name": "a"}]}, None),
        ([], None),
    ],
)
def test_invalid_profiles_are_rejected(api: httpx.Client, body: object, param: str | None) -> None:
    before = names(api)
    answer = api.post("/profiles", json=body)
    assert refused(answer) == (422, "invalid_value")
    assert param is None or answer.json()["error"]["param"] == param
    assert names(api) == before


def test_profile_round_trips(api: httpx.Client) -> None:
    sent = {
        **profile("whole", unit := 2.0), "positions": "generated", "skip": "none", "skip_constrained": True,
        "reference_norm": 3.5, "model": {"repo_id": "a/b", "revision": "main"},
        "saes": [{"name": "one", "sha256": "0" * 64, "layer": 3}, {"name": "two", "repo_id": "c/d"}],
        "features": [{"index": 1, "strength": unit, "sae": "one", "color": "#aabbcc", "label": "light"}],
        "watch": [{"index": 2, "sae": "two"}], "provenance": {"source": "elsewhere", "created": "2026-01-02T03:04:05Z"},
    }  # fmt: skip
    assert api.post("/profiles", json=sent).json()["source"] == "elsewhere"
    got = json.loads(json.dumps(api.get("/profiles/whole").json()["profile"]))
    assert {**got, **sent, "features": got["features"]} == got
    assert sent["features"][0].items() <= got["features"][0].items()
