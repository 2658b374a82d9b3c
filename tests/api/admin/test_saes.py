"""SAEs over HTTP: list, download, attach, detach, replace, and errors."""

from typing import Any

import pytest

from tests.api.admin.library import MODEL, OTHER_SAE, SAE, LibraryClient, events_until
from tests.fixtures.repos import GEMMA, GPT2, SCOPE_SAE
from tests.fixtures.tiny import FEATURES, WIDTH

STAND_IN_WIDTH = 32


def attached(library: LibraryClient) -> set[str]:
    told = library.get("/api/attachments")["attachments"]
    assert told == library.get("/api/status")["saes"]
    return {facts["sae"] for facts in told}


def test_attach_and_detach(library: LibraryClient) -> None:
    library.loaded(MODEL)
    with library.listening() as socket:
        facts = library.post("/api/attachments", {"id": SAE})
        assert (facts["sae"], facts["features"]) == (SAE, FEATURES)
        assert attached(library) == {SAE}
        status = library.delete(f"/api/attachments/{SAE}")
        heard = events_until(socket, lambda event: event["type"] == "status" and event["saes"] == [SAE])
        heard += events_until(socket, lambda event: event["type"] == "status" and event["saes"] == [])
    assert (status["saes"], attached(library)) == ([], set())
    assert {event["what"] for event in heard if event["type"] == "progress"} <= {SAE}


def test_several_saes_and_replacement(library: LibraryClient) -> None:
    library.loaded(MODEL)
    library.at_once(*[lambda id=id: library.post("/api/attachments", {"id": id}) for id in (SAE, OTHER_SAE)])  # type: ignore[misc]
    assert attached(library) == {SAE, OTHER_SAE}
    entries = {entry["id"]: entry for entry in library.get("/api/saes")["saes"]}
    assert entries[SAE]["is_attached"]
    assert entries[SAE] == library.get(f"/api/saes/{SAE}")
    library.delete(f"/api/attachments/{OTHER_SAE}")
    library.post("/api/attachments", {"id": OTHER_SAE, "replaces": SAE})
    assert attached(library) == {OTHER_SAE}
    assert not library.get(f"/api/saes/{SAE}")["is_attached"]


def test_attached_sae_is_not_deleted(library: LibraryClient) -> None:
    library.loaded(MODEL)
    library.post("/api/attachments", {"id": SAE})
    assert library.refused("DELETE", f"/api/saes/{SAE}") == (409, "in_use")
    assert attached(library) == {SAE}


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({}, 422, "invalid_value"),
        ({"id": "nope"}, 404, "sae_not_found"),
        ({"id": SAE, "layer": -1}, 422, "invalid_value"),
        ({"id": SAE, "layer": 1.0}, 422, "invalid_value"),
        ({"id": SAE, "layer": 10**12}, 422, "invalid_value"),
        ({"id": SAE, "layer": 99}, 422, "sae_mismatch"),
        ({"id": SAE, "hook_point": "blocks.99.hook_resid_post"}, 422, "sae_mismatch"),
        ({"id": SAE, "hook_point": "__import__('os')"}, 422, "invalid_value"),
        ({"id": SAE, "hook_point": "x" * 129}, 422, "invalid_value"),
        ({"id": SAE, "allow_model_mismatch": 1}, 422, "invalid_value"),
        ({"id": SAE, "replaces": "nope"}, 404, "sae_not_found"),
        ({"id": SAE, "path": "/etc"}, 422, "invalid_value"),
    ],
)
def test_failed_attach_changes_nothing(library: LibraryClient, body: dict[str, Any], status: int, code: str) -> None:
    library.loaded(MODEL)
    library.post("/api/attachments", {"id": OTHER_SAE})
    assert library.refused("POST", "/api/attachments", body) == (status, code)
    assert attached(library) == {OTHER_SAE}


def test_attach_without_a_model_is_rejected(library: LibraryClient) -> None:
    library.post("/api/models/unload")
    assert library.refused("POST", "/api/attachments", {"id": SAE}) == (503, "model_not_loaded")
    assert library.refused("DELETE", f"/api/attachments/{SAE}") == (404, "sae_not_found")


def test_downloaded_sae_is_attached_only_to_its_model(
    library: LibraryClient,
) -> None:
    preview = library.post("/api/saes/preview", {"id": SCOPE_SAE})
    assert [file["path"].rpartition("/")[2] for file in preview["files"] if file["size"] > 1000] == ["params.npz"]
    assert library.downloaded("saes", SCOPE_SAE)["done"] == preview["size"]
    entry = library.get(f"/api/saes/{SCOPE_SAE}")
    assert (entry["d_in"], entry["layer"], entry["state"]) == (STAND_IN_WIDTH, 12, "whole")
    library.loaded(MODEL)
    refused = library.ask("POST", "/api/attachments", {"id": SCOPE_SAE, "layer": 1})
    assert (refused.status_code, refused.json()["error"]["code"]) == (422, "sae_mismatch")
    assert {str(WIDTH), str(STAND_IN_WIDTH)} <= set(refused.json()["error"]["message"].replace(",", " ").split())
    library.downloaded("models", GEMMA)
    library.loaded(GEMMA)
    assert library.post("/api/attachments", {"id": SCOPE_SAE})["layer"] == 12
    assert library.refused("DELETE", f"/api/saes/{SCOPE_SAE}") == (409, "in_use")
    library.delete(f"/api/attachments/{SCOPE_SAE}")
    library.downloaded("models", GPT2)
    library.loaded(GPT2)
    elsewhere = {"id": SCOPE_SAE, "layer": 3}
    assert library.refused("POST", "/api/attachments", elsewhere) == (422, "sae_model_mismatch")
    facts = library.post("/api/attachments", {**elsewhere, "allow_model_mismatch": True})
    assert facts["layer"] == 3
    assert [warning for warning in facts["warnings"] if "gemma-2-2b" in warning]
    library.delete(f"/api/attachments/{SCOPE_SAE}")
    with library.listening() as socket:
        assert library.delete(f"/api/saes/{SCOPE_SAE}")["bytes"] >= entry["size"]
        assert socket.next(10) == {"type": "library", "kind": "sae", "name": SCOPE_SAE}
    assert library.refused("GET", f"/api/saes/{SCOPE_SAE}") == (404, "sae_not_found")
    library.loaded(MODEL)
    for model in (GEMMA, GPT2):
        library.delete(f"/api/models/{model}")
