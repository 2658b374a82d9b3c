"""Download jobs: find, cancel, resume, and unknown ids."""

import time

import pytest

from tests.api.admin.library import LibraryClient, events_until
from tests.fixtures.fakehub import FakeHub
from tests.fixtures.repos import GEMMA, GPT2


def test_download_is_cancelled_and_resumed(library: LibraryClient, hub: FakeHub) -> None:
    hub.speed = 50_000
    with library.listening() as socket:
        job = library.post("/api/models", {"id": GEMMA})
        events_until(socket, lambda event: event["type"] == "job" and event["job"]["state"] == "running")
        began = time.monotonic()
        cancelled = library.post(f"/api/jobs/{job['id']}/cancel")
        assert time.monotonic() - began < 1
        heard = events_until(socket, lambda event: event["type"] == "job" and event["job"]["state"] == "cancelled")
    hub.speed = None
    assert (cancelled["id"], cancelled["state"]) == (job["id"], "cancelled")
    assert {event["job"]["id"] for event in heard if event["type"] == "job"} == {job["id"]}
    assert library.get("/api/jobs")["jobs"][0]["id"] == job["id"]
    resumed = library.post(f"/api/jobs/{job['id']}/resume")
    assert resumed["id"] == job["id"]
    done = library.asleep_until(lambda: (j := library.get(f"/api/jobs/{job['id']}"))["state"] == "installed" and j)
    assert done["done"] == done["total"]
    library.delete(f"/api/models/{GEMMA}")


def test_progress_is_throttled(library: LibraryClient, hub: FakeHub) -> None:
    hub.speed = 400_000
    with library.listening() as socket:
        library.post("/api/models", {"id": GPT2})
        began = time.monotonic()
        heard = events_until(socket, lambda event: event["type"] == "library")
        seconds = time.monotonic() - began
    hub.speed = None
    running = [event for event in heard if event["type"] == "job" and event["job"]["state"] == "running"]
    assert len(running) <= 4 * seconds + 2
    library.delete(f"/api/models/{GPT2}")


def test_failed_download_has_a_reason(library: LibraryClient, hub: FakeHub) -> None:
    hub.gated.add(GPT2)
    hub.faults.clear()
    hub.fail(GPT2, "status", status=403, error="GatedRepo", times=100)
    try:
        job = library.post("/api/models", {"id": GPT2})
        failed = library.asleep_until(lambda: (j := library.get(f"/api/jobs/{job['id']}"))["state"] == "failed" and j)
    finally:
        hub.gated.clear()
        hub.forget()
    assert failed["problem"]["code"] == "gated_repository"
    assert failed["problem"]["link"]


@pytest.mark.parametrize("id", ["nope", "..", "%00", "x" * 64])
def test_unknown_job_is_rejected(library: LibraryClient, id: str) -> None:
    if id != "..":
        assert library.refused("GET", f"/api/jobs/{id}") == (404, "job_not_found")
    assert library.refused("POST", f"/api/jobs/{id}/cancel")[0] == 404
    assert library.refused("POST", f"/api/jobs/{id}/resume")[0] == 404
    assert library.refused("GET", f"/api/jobs/{'x' * 65}") == (422, "invalid_value")
