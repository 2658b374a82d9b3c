"""The models of the library: list, download and delete, with every response checked."""

import json
from typing import Any
from urllib.parse import quote

import pytest

from tests.api.admin.library import MODEL, SPARE, LibraryClient, events_until
from tests.fixtures.fakehub import FakeHub
from tests.fixtures.repos import GPT2, LLAMA


def test_library_and_loaded_model(library: LibraryClient) -> None:
    library.loaded(MODEL)
    entries = {entry["id"]: entry for entry in library.get("/api/models")["models"]}
    assert {MODEL, SPARE} <= entries.keys()
    assert {id for id, entry in entries.items() if entry["is_loaded"]} == {MODEL}
    assert library.get(f"/api/models/{MODEL}") == entries[MODEL]
    assert entries[SPARE]["origin"] == "imported"


def test_hub_preview_and_search(library: LibraryClient) -> None:
    (found,) = library.post("/api/models/search", {"text": " tiny/LLAMA "})["models"]
    assert (found["id"], found["gated"], found["known_saes"]) == (LLAMA, False, 0)
    assert library.post("/api/models/search", {"text": "no such thing"}) == {"models": []}
    for body in ({"text": " "}, {"text": ""}, {"text": "x" * 201}, {"text": "x", "limit": 0}, {"text": 7}, {}):
        assert library.refused("POST", "/api/models/search", body)[0] == 422, body


def test_model_is_downloaded_and_deleted(library: LibraryClient) -> None:
    preview = library.post("/api/models/preview", {"id": LLAMA})
    assert (preview["name"], preview["licence"], preview["architecture"]) == (LLAMA, "apache-2.0", "LlamaForCausalLM")
    with library.listening() as socket:
        job = library.downloaded("models", LLAMA)
        heard = events_until(socket, lambda event: event["type"] == "library")
    assert heard[-1] == {"type": "library", "kind": "model", "name": LLAMA}
    states = [event["job"]["state"] for event in heard if event["type"] == "job"]
    assert states[-1] == "installed"
    assert (job["name"], job["done"]) == (LLAMA, job["total"])
    entry = library.get(f"/api/models/{LLAMA}")
    assert (entry["state"], entry["origin"], entry["commit"]) == ("whole", "hub", preview["commit"])
    with library.listening() as socket:
        freed = library.delete(f"/api/models/{LLAMA}")
        assert socket.next(10) == {"type": "library", "kind": "model", "name": LLAMA}
    assert freed["id"] == LLAMA
    assert freed["bytes"] >= preview["size"]
    assert library.refused("GET", f"/api/models/{LLAMA}") == (404, "model_not_found")
    assert library.refused("DELETE", f"/api/models/{LLAMA}") == (404, "model_not_found")


def test_concurrent_equal_downloads_are_one_job(library: LibraryClient, hub: FakeHub) -> None:
    hub.speed = 200_000
    try:
        jobs = library.at_once(*[lambda: library.post("/api/models", {"id": GPT2})] * 4)
        assert len({job["id"] for job in jobs}) == 1
        assert library.refused("DELETE", f"/api/models/{GPT2}")[0] in (404, 409)
    finally:
        hub.speed = None
    library.downloaded("models", GPT2)
    library.delete(f"/api/models/{GPT2}")


def test_loaded_model_is_not_deleted(library: LibraryClient) -> None:
    library.loaded(SPARE)
    assert library.refused("DELETE", f"/api/models/{SPARE}") == (409, "in_use")
    assert library.get(f"/api/models/{SPARE}")["is_loaded"]
    assert library.get("/api/status")["status"] == "ready"


@pytest.mark.parametrize(
    "id", ["../../etc/passwd", "a/../b", "/etc/passwd", "~/.ssh", "a\\b", "a\x00b", "a\nb", " a", "x" * 513, "a\u202eb"]
)
@pytest.mark.parametrize("shelf", ["models", "saes"])
def test_invalid_names_are_rejected_before_lookup(library: LibraryClient, shelf: str, id: str) -> None:
    for method in ("GET", "DELETE"):
        refused = library.refused(method, f"/api/{shelf}/{quote(id, safe='')}")
        assert refused == ((404, "not_found") if "\n" in id else (422, "invalid_value"))  # no address has two lines
    for address in (f"/api/{shelf}", f"/api/{shelf}/preview"):
        assert library.refused("POST", address, {"id": id}) == (422, "invalid_value")
    if shelf == "models":
        assert library.refused("POST", "/api/models/load", {"id": id}) == (422, "invalid_value")
        assert library.refused("POST", "/api/models/estimate", {"id": MODEL, "saes": [id]}) == (422, "invalid_value")
    else:
        assert library.refused("POST", "/api/attachments", {"id": id}) == (422, "invalid_value")
        assert library.refused("DELETE", f"/api/attachments/{quote(id, safe='')}") == refused


@pytest.mark.parametrize(
    "body",
    [
        {}, [], 7, "tiny", None, {"id": None}, {"id": ""}, {"id": 3}, {"id": ["a/b"]}, {"id": {"a": 1}},
        {"id": "a/b", "revision": ""}, {"id": "a/b", "revision": None}, {"id": "a/b", "revision": "../main"},
        {"id": "a/b", "revision": "x" * 129}, {"id": "a/b", "revision": "ma in"}, {"id": "a/b", "path": "c"},
        {"id": "a/b", "token": "mine"}, {"id": "one-word"}, {"id": "a/b:c"}, {"id": "https://x.org/a/b"},
    ],
)  # fmt: skip
def test_ids_without_a_repository_are_rejected(library: LibraryClient, hub: FakeHub, body: Any) -> None:
    before = len(library.get("/api/jobs")["jobs"])
    for address in ("/api/models", "/api/models/preview"):
        status, _ = library.refused("POST", address, json.dumps(body).encode())
        assert status == 422
    assert len(library.get("/api/jobs")["jobs"]) == before


@pytest.mark.parametrize("content", [b"", b"{", b'{"id": NaN}', b'{"id": "\xff"}', b"[" * 100, b'{"id": "\\ud800"}'])
@pytest.mark.parametrize("address", ["/api/models", "/api/models/load", "/api/saes/preview", "/api/attachments"])
def test_malformed_json_is_rejected(library: LibraryClient, address: str, content: bytes) -> None:
    status, code = library.refused("POST", address, content)
    assert (status, code) == (422 if content == b"" else 400, "invalid_value")


def test_large_body_is_rejected(library: LibraryClient) -> None:
    body = {"id": "a/b", "revision": "x" * (4 * 2**20)}
    assert library.refused("POST", "/api/models", body) == (413, "request_too_large")


def test_hub_errors_have_distinct_codes(library: LibraryClient, hub: FakeHub) -> None:
    assert library.refused("POST", "/api/models/preview", {"id": "nobody/nothing"}) == (404, "repository_not_found")
    assert library.refused("POST", "/api/models/preview", {"id": LLAMA, "revision": "nope"})[0] == 404


def test_wrong_method_is_rejected(library: LibraryClient) -> None:
    answer = library.ask("PUT", f"/api/models/{MODEL}")
    assert (answer.status_code, answer.headers["allow"]) == (405, "DELETE, GET, HEAD")
