"""Loading and unloading over HTTP: estimates, progress, concurrency, and rollback."""

import time
from itertools import groupby
from typing import Any

import httpx
import pytest

from tests.api.admin.library import MODEL, SAE, SPARE, LibraryClient, events_until

CHAT = {"messages": [{"role": "user", "content": "Tell me about the sea."}], "temperature": 0, "max_tokens": 4}


def answers(library: LibraryClient, model: str) -> bool:
    answer = library.ask("POST", "/v1/chat/completions", {"model": model, **CHAT})
    return answer.status_code == 200


def test_load_replace_unload(library: LibraryClient) -> None:
    for name in (MODEL, SPARE):
        status = library.post("/api/models/load", {"id": name})
        assert (status["status"], status["model"]["name"], status["changing"]) == ("ready", name, None)
        assert status == {**library.get("/api/status"), "model": status["model"]}
        assert answers(library, name)
    empty = library.post("/api/models/unload")
    assert (empty["status"], empty["model"], empty["saes"]) == ("empty", None, [])
    assert not answers(library, SPARE)
    assert library.post("/api/models/unload")["status"] == "empty", "once more changes nothing"


def test_load_options_are_applied(library: LibraryClient) -> None:
    status = library.post("/api/models/load", {"id": MODEL, "dtype": "float32", "slots": 3, "device": "cpu"})
    facts = status["model"]["facts"]
    assert (facts["slots"], facts["device"]) == (3, "cpu")
    assert status["model"]["estimate"]["slots"] == 3


def test_estimate_and_measurement_are_reported(library: LibraryClient) -> None:
    asked = {"id": MODEL, "slots": 2}
    estimate = library.post("/api/models/estimate", asked)
    assert (estimate["model"], estimate["slots"], estimate["verdict"]) == (MODEL, 2, "fits")
    model = library.post("/api/models/load", asked)["model"]
    same = ("weights", "kv_cache", "kv_cache_all", "context", "overhead", "dtype")
    assert [model["estimate"][part] for part in same] == [estimate[part] for part in same]
    assert model["facts"]["memory"]["weights"] == pytest.approx(model["estimate"]["weights"], rel=1e-3)
    with_sae = library.post("/api/models/estimate", {**asked, "saes": [SAE]})
    assert with_sae["saes"] > estimate["saes"] == 0
    assert with_sae["total"] - estimate["total"] == with_sae["saes"]


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({}, 422, "invalid_value"),
        ({"id": "nope"}, 404, "model_not_found"),
        ({"id": "owner/nope"}, 404, "model_not_found"),
        ({"id": MODEL, "quantization": "3bit"}, 422, "invalid_value"),
        ({"id": MODEL, "dtype": "float64"}, 422, "invalid_value"),
        ({"id": MODEL, "device": "cuda:x"}, 422, "invalid_value"),
        ({"id": MODEL, "device": "cuda:0; rm"}, 422, "invalid_value"),
        ({"id": MODEL, "device_map": "balanced"}, 422, "invalid_value"),
        ({"id": MODEL, "attention": "magic"}, 422, "invalid_value"),
        ({"id": MODEL, "slots": 0}, 422, "invalid_value"),
        ({"id": MODEL, "slots": 1.5}, 422, "invalid_value"),
        ({"id": MODEL, "slots": True}, 422, "invalid_value"),
        ({"id": MODEL, "slots": 10**30}, 422, "invalid_value"),
        ({"id": MODEL, "context": -1}, 422, "invalid_value"),
        ({"id": MODEL, "context": "many"}, 422, "invalid_value"),
        ({"id": MODEL, "force": "yes"}, 422, "invalid_value"),
        ({"id": MODEL, "path": "/etc"}, 422, "invalid_value"),
        ({"id": MODEL, "trust_remote_code": True}, 422, "invalid_value"),
    ],
)
def test_failed_load_changes_nothing(library: LibraryClient, body: dict[str, Any], status: int, code: str) -> None:
    before = library.loaded(SPARE)
    assert library.refused("POST", "/api/models/load", body) == (status, code)
    after = library.get("/api/status")
    assert (after["status"], after["model"]) == ("ready", before["model"])
    if "force" not in body:
        assert library.refused("POST", "/api/models/estimate", body) == (status, code)


@pytest.mark.parametrize("saes", ["tiny", [7], [""], ["tiny"] * 65, {"a": 1}])
def test_estimate_with_invalid_sae_ids_is_rejected(library: LibraryClient, saes: Any) -> None:
    assert library.refused("POST", "/api/models/estimate", {"id": MODEL, "saes": saes}) == (422, "invalid_value")


def test_estimate_with_an_unknown_sae_is_rejected(library: LibraryClient) -> None:
    assert library.refused("POST", "/api/models/estimate", {"id": MODEL, "saes": ["nope"]}) == (404, "sae_not_found")


def test_concurrent_equal_loads_are_one(library: LibraryClient) -> None:
    library.loaded(MODEL)
    with library.listening() as socket:
        told = library.at_once(*[lambda: library.post("/api/models/load", {"id": SPARE})] * 4)
        library.ask("PUT", "/api/steering", b"null")
        heard = events_until(socket, lambda event: event["type"] == "steering")
    assert [status["model"]["name"] for status in told] == [SPARE] * 4
    statuses = [event["status"] for event in heard if event["type"] == "status"]
    assert [status for status, _ in groupby(statuses)].count("loading") == 1
    assert {event["what"] for event in heard if event["type"] == "progress"} == {SPARE}


def test_concurrent_different_loads_are_sequential(library: LibraryClient) -> None:
    library.loaded(MODEL)
    names = (SPARE, MODEL, SPARE)
    library.at_once(*[lambda name=name: library.post("/api/models/load", {"id": name}) for name in names])  # type: ignore[misc]
    last = library.get("/api/status")["model"]["name"]
    assert last in names
    assert answers(library, last)


def test_load_continues_after_disconnect(library: LibraryClient) -> None:
    library.loaded(MODEL)
    with pytest.raises(httpx.ReadTimeout):
        library.http.post("/api/models/load", json={"id": SPARE}, timeout=httpx.Timeout(10, read=0.02))
    assert library.refused("DELETE", f"/api/models/{SPARE}") == (409, "in_use"), "while it is on its way, too"
    library.asleep_until(lambda: (library.get("/api/status")["model"] or {}).get("name") == SPARE)
    assert answers(library, SPARE)


def test_cancel_without_a_load_is_rejected(library: LibraryClient) -> None:
    library.loaded(MODEL)
    assert library.refused("POST", "/api/models/cancel") == (409, "conflict")


def test_cancelled_load_changes_nothing(library: LibraryClient) -> None:
    library.loaded(MODEL)
    for _ in range(20):  # it may be over too soon
        with pytest.raises(httpx.ReadTimeout):
            library.http.post("/api/models/load", json={"id": SPARE}, timeout=httpx.Timeout(10, read=0.03))
        answer = library.ask("POST", "/api/models/cancel")
        status = library.asleep_until(lambda: (s := library.get("/api/status"))["changing"] is None and s)
        if answer.status_code == 200 and status["model"]["name"] == MODEL:
            assert status["cause"]["code"] == "model_not_loaded"
            assert answers(library, MODEL)
            return
        library.loaded(MODEL)
        time.sleep(0.01)
    raise AssertionError("not one of 20 loads could be given up")
