"""The read-only routes: registry, hardware, log."""

from typing import Any

import pytest

from tests.api.admin.library import MODEL, LibraryClient


def test_registry_search(library: LibraryClient) -> None:
    found = library.get("/api/registry/saes?model=google/gemma-2-2b&layer=20&site=resid_post&limit=5")
    assert found["total"] > len(found["saes"]) == 5
    assert {(sae["model"], sae["layer"], sae["site"]) for sae in found["saes"]} == {
        ("google/gemma-2-2b", 20, "resid_post")
    }
    following = library.get("/api/registry/saes?model=google/gemma-2-2b&layer=20&site=resid_post&limit=5&offset=5")
    assert following["total"] == found["total"]
    assert not {sae["id"] for sae in found["saes"]} & {sae["id"] for sae in following["saes"]}
    shelf = {model["id"]: model for model in library.get("/api/registry/models")["models"]}
    assert 20 in shelf["google/gemma-2-2b"]["layers"]


@pytest.mark.parametrize(
    "query",
    ["layer=-1", "layer=a", "layer=NaN", "site=nowhere", "width=0", "limit=0", "limit=501", "offset=-1",
     f"text={'x' * 201}", f"model={'x' * 201}"],
)  # fmt: skip
def test_invalid_registry_searches_are_rejected(library: LibraryClient, query: str) -> None:
    assert library.refused("GET", f"/api/registry/saes?{query}") == (422, "invalid_value")


def test_hardware_is_reported(library: LibraryClient) -> None:
    library.loaded(MODEL)
    told = library.get("/api/hardware")
    assert told["memory"]["total"] >= told["memory"]["available"] > 0
    assert told["torch"]["threads"] >= 1
    assert told["torch"] == library.get("/api/status")["platform"]


def lines(library: LibraryClient, query: str = "") -> list[dict[str, Any]]:
    told: list[dict[str, Any]] = library.get(f"/api/logs?{query}")["lines"]
    return told


def test_log_has_lines_of_both_processes_and_pages(library: LibraryClient) -> None:
    library.post("/api/models/unload")
    before = lines(library, "limit=1")
    number = before[-1]["number"] if before else 0
    library.loaded(MODEL)
    new = lines(library, f"after={number}")
    assert "engine.runner" in {line["event"] for line in new}, "the engine's own words"
    assert [line["number"] for line in new] == sorted(line["number"] for line in new)
    assert all(line["number"] > number for line in new)
    assert lines(library, f"after={new[-1]['number']}") == []
    assert lines(library, "limit=2") == lines(library)[-2:]
    assert {line["level"] for line in lines(library, "level=error")} <= {"error", "critical"}


@pytest.mark.parametrize("query", ["level=loud", "limit=0", "limit=2001", "after=-1", "after=x", "limit=1e3"])
def test_invalid_log_queries_are_rejected(library: LibraryClient, query: str) -> None:
    assert library.refused("GET", f"/api/logs?{query}") == (422, "invalid_value")
