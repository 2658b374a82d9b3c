"""Imports and exports over HTTP: preview, conflicts, stored SAE ids, vectors, downloads."""

import json
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from safetensors.numpy import load_file

from millm.profiles.formats.gguf import ControlVector, decode_control_vector, encode_control_vector
from millm.profiles.schema import Profile
from tests.api.admin.test_steering import ask
from tests.docs.blocks import EXAMPLE_URL, blocks, commands
from tests.fixtures.inside import serving
from tests.profiles.test_formats_import import EXPORTED, export
from tools.make_docs import DOCS

SHAPES = Path(__file__).parents[2] / "profiles" / "shapes"
FLAT = {"version": "1.0", "name": "Pushed", "model_id": "tiny-llama", "sae_id": "sae_1", "steering": {"3": 6.0}}
"""What the profile `push` says, as another server writes it."""


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, tiny_sae: Path) -> Iterator[httpx.Client]:
    with (
        serving(tiny_model, tiny_sae, tmp_path_factory.mktemp("files")) as inside,
        httpx.Client(base_url=inside.url, timeout=30) as client,
    ):
        yield client


@pytest.fixture
def door(shared: httpx.Client) -> httpx.Client:
    return shared


def take(door: httpx.Client, document: Any, **query: Any) -> httpx.Response:
    content = document if isinstance(document, bytes) else json.dumps(document).encode()
    return door.post("/api/profiles/import", content=content, params=query)


def test_imported_profile_steers_as_in_its_tool(door: httpx.Client, chat: dict[str, Any]) -> None:
    preview = door.post("/api/profiles/import/preview", content=json.dumps(FLAT)).raise_for_status().json()
    (entry,) = preview["entries"]
    assert [one["id"] for one in entry["unresolved"]] == ["sae_1"]
    refused = take(door, FLAT)
    assert (refused.status_code, refused.json()["error"]["code"]) == (422, "invalid_import")
    assert "?sae=sae_1=" in refused.json()["error"]["message"]
    done = take(door, FLAT, sae="sae_1=tiny").raise_for_status().json()
    assert [(one["name"], one["did"]) for one in done["entries"]] == [("Pushed", "added")]
    assert ask(door, chat, profile="pushed")[0] == ask(door, chat, profile="push")[0]
    known = door.post("/api/profiles/import/preview", content=json.dumps(FLAT)).json()["entries"][0]
    assert (known["unresolved"], known["misfit"]) == ([], None)


def test_on_conflict_modes(door: httpx.Client) -> None:
    document = {**FLAT, "name": "twice"}
    take(door, document, sae="sae_1=tiny").raise_for_status()
    assert take(door, document).json()["error"]["param"] == "on_conflict"
    twins = [{**document, "name": "twins"}, {**document, "name": "Twins"}]
    assert take(door, twins).json()["error"]["code"] == "profile_name_taken"
    assert door.get("/api/profiles/twins").status_code == 404
    did = {
        how: take(door, document, on_conflict=how).raise_for_status().json()["entries"][0]
        for how in ("skip", "replace", "rename")
    }
    assert {how: one["did"] for how, one in did.items()} == {
        "skip": "skipped",
        "replace": "replaced",
        "rename": "added",
    }
    assert did["rename"]["name"] == "twice (2)"


def test_one_entry_is_selected_and_renamed(door: httpx.Client) -> None:
    document = (SHAPES / "mistudio-experiment.json").read_bytes()
    query = {"sae": "sae_123=tiny", "only": "$.selected_features[1]", "as": "chosen"}
    (entry,) = take(door, document, **query).raise_for_status().json()["entries"]
    assert (entry["path"], entry["name"]) == ("$.selected_features[1]", "chosen")
    assert take(door, document, only="$.nope").json()["error"]["param"] == "only"
    assert take(door, document, **{"as": "both"}).json()["error"]["param"] == "as"
    assert take(door, document, sae="nothing").json()["error"]["param"] == "sae"


def test_profile_of_another_layer_is_a_misfit(door: httpx.Client) -> None:
    document = (SHAPES / "millm-v1.json").read_bytes()
    (entry,) = door.post("/api/profiles/import/preview", content=document).raise_for_status().json()["entries"]
    assert "SmolLM2" in entry["misfit"]


def test_imported_labels_override_known_ones(door: httpx.Client) -> None:
    done = take(door, export(**EXPORTED), sae="sae_123=tiny").raise_for_status().json()
    assert [one["did"] for one in done["entries"]] == ["added"]
    found = door.get("/api/features/search", params={"q": "sea"}).raise_for_status().json()
    assert [(one["index"], one["label"]) for one in found["features"]] == [(3, "the sea")]


def test_exported_profile_is_imported_again(door: httpx.Client) -> None:
    given = door.get("/api/profiles/push/export").raise_for_status()
    assert given.headers["content-disposition"] == "attachment; filename*=UTF-8''push.json"
    take(door, given.content, **{"as": "pushed again"}).raise_for_status()
    again = door.get("/api/profiles/pushed again/export").raise_for_status().json()
    assert again == {**given.json(), "name": "pushed again"}
    refused = door.get("/api/profiles/push/export", params={"format": "gguf"})
    assert (refused.status_code, refused.json()["error"]["code"]) == (422, "invalid_profile")
    assert "skip=none" in refused.json()["error"]["message"]
    assert door.get("/api/profiles/nope/export").status_code == 404


def test_control_vector_is_strength_times_the_unit_row(door: httpx.Client, tiny_sae: Path) -> None:
    file = door.get("/api/profiles/push/export", params={"format": "gguf", "skip": "none"}).raise_for_status().content
    (layer, values), *more = decode_control_vector(file).directions.items()
    assert more == []
    row = load_file(tiny_sae / "sae_weights.safetensors")["W_dec"][3].astype(np.float64)
    assert np.allclose(values, 6.0 * row / np.linalg.norm(row), atol=1e-5)
    elsewhere = encode_control_vector(ControlVector({layer: values}))
    (entry,) = door.post("/api/profiles/import/preview", content=elsewhere).raise_for_status().json()["entries"]
    strengths = {one["index"]: one["strength"] for one in entry["profile"]["features"]}
    assert strengths[3] == pytest.approx(6.0, abs=1e-3)
    assert all(abs(strength) < 1e-2 for index, strength in strengths.items() if index != 3)


def test_vector_without_an_sae_stays_unresolved(door: httpx.Client) -> None:
    elsewhere = encode_control_vector(ControlVector({7: struct.unpack("<2f", bytes(8))}))
    (entry,) = door.post("/api/profiles/import/preview", content=elsewhere).raise_for_status().json()["entries"]
    assert [(one["kind"], one["id"]) for one in entry["unresolved"]] == [("vector", "blocks.7.hook_resid_post")]
    assert take(door, elsewhere).status_code == 422


def test_documented_commands_run(door: httpx.Client) -> None:
    preview, done, exported = (json.loads(answer) for answer in said_by(commands(DOCS / "profiles.md"), door))
    assert [one["id"] for one in preview["entries"][0]["unresolved"]] == ["sae_7"]
    assert done["entries"][0]["did"] == "added"
    assert exported["sae"]["path"] == "layer_20/width_16k/average_l0_71"


def test_documented_example_is_valid() -> None:
    (example,) = blocks(DOCS / "profiles.md", "json")
    assert Profile.model_validate_json(example).features[0].strength == 80.0


def said_by(lines: list[str], door: httpx.Client) -> list[str]:
    here = str(door.base_url).rstrip("/")
    return [
        subprocess.run(
            ["bash", "-c", line.replace(EXAMPLE_URL, here)], capture_output=True, text=True, check=True
        ).stdout
        for line in lines
    ]
