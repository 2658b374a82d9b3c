"""Every import format: no value is dropped silently, and strengths are those of the document."""

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import pytest

from millm.errors import InvalidImport
from millm.profiles.formats.detect import parse_document
from millm.profiles.formats.document import KnownSaes, ParsedDocument, format_path, leaves

SHAPES = sorted((Path(__file__).parent / "shapes").iterdir())
HERE = Path(__file__).parent / "shapes"


def read(name: str, **saes: str) -> ParsedDocument:
    return parse_document((HERE / name).read_bytes(), KnownSaes(saes))


def strengths(found: ParsedDocument) -> list[dict[int, float]]:
    return [{one.index: one.strength for one in entry.profile.features} for entry in found.entries if entry.profile]


def values_in(found: ParsedDocument) -> set[str]:
    """Every value in an entry's profile, as text, and the unresolved ids."""
    held: set[str] = set()
    for entry in found.entries:
        if entry.profile:
            for path, value in leaves(entry.profile.model_dump(mode="json", exclude_defaults=True)):
                held |= {str(value), *(str(part) for part in path)}
        held |= {str(value) for label in entry.labels for value in (label.index, label.label, label.max_act)}
        held |= {one.id for one in entry.unresolved} | {str(one.layer) for one in entry.vectors}
    return held


def is_told(place: str, found: ParsedDocument) -> bool:
    notes = [*found.notes, *(note for entry in found.entries for note in entry.notes)]
    return any(place.startswith(note.partition(": ")[0]) for note in notes)


def in_profile(value: Any, held: set[str]) -> bool:
    spelled = {str(value), str(value).replace("Z", "+00:00")}
    if isinstance(value, int | float) and not isinstance(value, bool):
        spelled |= {str(float(value)), str(value * 1.5), str(value * 2.0)}
    return bool(spelled & held) or any(str(value) in one for one in held if len(str(value)) > 3)


@pytest.mark.parametrize("path", [path for path in SHAPES if path.suffix == ".json"], ids=lambda path: path.stem)
def test_every_leaf_is_imported_or_noted(path: Path) -> None:
    found = parse_document(path.read_bytes(), KnownSaes())
    held = values_in(found)
    lost = [
        format_path(place)
        for place, value in leaves(json.loads(path.read_bytes()))
        if not is_told(format_path(place), found) and not in_profile(value, held)
    ]
    assert lost == []


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("millm-v1.json", [{2867: 0.5, 68: 3.0}]),
        ("peer-a-flat.json", [{11859: 80.0, 7: -2.5}]),
        ("peer-b-wrapped.json", [{1234: 5.0, 5678: -3.0}]),
        ("peer-c-adr.json", [{1234: 5.0}]),
        ("peer-d-browser.json", [{11859: 80.0}]),
        ("mistudio-experiment.json", [{11859: 80.0}, {12082: 150.0}]),
        ("mistudio-experiment-multi.json", [{11859: 80.0}]),
        ("mistudio-experiments.json", [{11859: 80.0}, {12082: 150.0}, {11859: 80.0}]),
        ("mistudio-combined.json", [{11859: 80.0, 12082: -15.0}]),
        ("mistudio-sweep.json", [{11859: 40.0}, {11859: 80.0}]),
        ("mistudio-browser.json", [{11859: 80.0}]),
        ("neuronpedia-steer.json", [{11859: 80.0}]),
        ("neuronpedia-steer-chat.json", [{11859: 60.0}]),
        ("neuronpedia-list.json", [{11859: 0.0}]),
        ("neuronpedia-feature.txt", [{11859: 0.0}]),
        ("lm-eval.csv", [{12082: 240.0, 11859: -8.5}, {3124: 100.0}]),
        ("goodfire-variant.json", [{7321: 0.4}]),
    ],
)
def test_strengths_equal_the_document(name: str, expected: list[dict[int, float]]) -> None:
    assert strengths(read(name)) == expected


def test_foreign_sae_is_unresolved_until_mapped() -> None:
    asked = read("mistudio-combined.json").entries[0]
    assert [(one.kind, one.id) for one in asked.unresolved] == [("sae", "sae_123")]
    known = read("mistudio-combined.json", sae_123="owner/saes/layer_20@main").entries[0]
    assert known.unresolved == ()
    assert known.profile is not None
    (sae,) = known.profile.saes
    assert (sae.repo_id, sae.path, sae.revision, sae.layer) == ("owner/saes", "layer_20", "main", 20)


def test_neuronpedia_ids_resolve_through_the_catalogue() -> None:
    (entry,) = read("neuronpedia-steer.json").entries
    assert entry.profile is not None
    assert entry.profile.saes[0].alias == "google/gemma-scope-2b-pt-res/layer_20/width_16k/average_l0_71"
    assert entry.profile.model is not None
    assert entry.profile.model.repo_id == "google/gemma-2-2b"
    assert entry.profile.skip is None
    assert read("neuronpedia-steer-chat.json").entries[0].profile.skip == "none"


@pytest.mark.parametrize("name", ["neuronpedia-vector.json", "neuronpedia-vector-new.json"])
def test_a_vector_is_multiplied_by_its_strength(name: str) -> None:
    (vector,) = read(name).entries[0].vectors
    assert (vector.hook_point, vector.values) == ("blocks.1.hook_resid_post", (5.0, -2.5, 0.0, 10.0))


def test_goodfire_features_without_index_are_unresolved() -> None:
    (entry,) = read("goodfire-variant.json").entries
    assert [one.path for one in entry.unresolved if one.kind == "feature"] == ["$.edits[1]"]


def export(**files: Any) -> bytes:
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, value in files.items():
            archive.writestr(name, value if isinstance(value, bytes) else json.dumps(value))
    return written.getvalue()


METADATA = {
    "model_id": "gemma-2-2b", "sae_id": "layer_12_res_16k", "d_sae": 96, "export_version": "1.0",
    "source": {"tool": "miStudio", "version": "1", "sae_id": "sae_123"},
}  # fmt: skip
EXPORTED = {
    "metadata.json": METADATA,
    "features/3.json": {"feature_index": 3, "statistics": {"max_activation": 12.5, "mean_activation": 1.0}},
    "explanations/explanations.json": {
        "explanations": [{"feature_index": 3, "explanations": [{"description": "the sea", "method": "miStudio_x"}]}]
    },
    "saelens/sae_weights.safetensors": b"\x00" * 16,
}


def test_neuronpedia_export_becomes_labels() -> None:
    found = parse_document(export(**EXPORTED), KnownSaes({"sae_123": "tiny"}))
    (entry,) = found.entries
    assert (entry.becomes, entry.sae) == ("labels", "tiny")
    assert [(one.index, one.label, one.max_act) for one in entry.labels] == [(3, "the sea", 12.5)]
    assert any("sae_weights" in note for note in found.notes)
    assert any("mean_activation: left out" in note for note in entry.notes)


FLAT = '{"version":"1.0","name":"x","steering":%s}'


@pytest.mark.parametrize(
    ("document", "said"),
    [
        (b"", "none of those that are known"),
        (b"{}", "none of those that are known"),
        (b"[]", "none of those that are known"),
        (b'{"a": NaN}', "no JSON"),
        (b'{"a": 1, "a": 2}', "no JSON"),
        (b"\xff\xfe", "UTF-8"),
        (b"[" * 5000 + b"]" * 5000, "nested"),
        (b"[" * 100 + b"]" * 100, "nested"),
        (b"[" + b"1," * 600_000 + b"1]", "at most 1 MiB"),
        ((FLAT % '{"3": 1e999}').encode(), "finite"),
        ((FLAT % '{"3": true}').encode(), "a number"),
        ((FLAT % '{"3": 1, "03": 2}').encode(), "given twice, differently"),
        ((FLAT % '{"x": 1}').encode(), "index of a feature"),
        ((FLAT % '{"-3": 1}').encode(), "index of a feature"),
        (b'{"version": "1", "name": "x", "features": [], "feature": []}', "is no profile"),
        (b"PK\x03\x04", "ZIP archive is damaged"),
        (export(**{"../metadata.json": {}}), "outside"),
        (export(**{"/etc/metadata.json": {}}), "outside"),
        (b"GGUF", "damaged"),
        (b"GGUF\x03\x00\x00\x00" + b"\xff" * 16, "at most"),
        (b"https://example.org/x", "address of a feature"),
        (b"action,feature_index\nadd,3", "columns"),
    ],
)
def test_unreadable_documents_give_one_sentence(document: bytes, said: str) -> None:
    with pytest.raises(InvalidImport, match=said) as refused:
        parse_document(document, KnownSaes())
    assert "\n" not in refused.value.message
    assert len(refused.value.message) < 1000


def test_zip_bomb_is_rejected() -> None:
    with pytest.raises(InvalidImport, match="64 MiB unpacked"):
        parse_document(export(**{"metadata.json": b" " * (65 * 2**20)}), KnownSaes())


@pytest.mark.parametrize("method", ["ORTHOGONAL_DECOMP", "PROJECTION_CAP"])
def test_other_neuronpedia_methods_are_rejected_by_name(method: str) -> None:
    steer = json.loads((HERE / "neuronpedia-steer.json").read_bytes())
    with pytest.raises(InvalidImport, match=method):
        parse_document(json.dumps({**steer, "steer_method": method}).encode(), KnownSaes())


def test_unreadable_list_items_become_notes() -> None:
    good = json.loads((HERE / "peer-d-browser.json").read_bytes())
    found = parse_document(json.dumps([good, {"name": "y", "steering": {"3": "loud"}}, 7]).encode(), KnownSaes())
    assert [entry.becomes for entry in found.entries] == ["profile", "nothing", "nothing"]
    assert "$[1].steering['3'] has to be a number" in found.entries[1].notes


def test_names_are_sanitised_and_html_stays_text() -> None:
    name = "a/b\n<b>" + "x" * 200
    document = {"version": "1.0", "name": name, "features": [{"index": 3, "strength": 1, "label": "<script>"}],
                "sae": {"repo": "o/n", "layer": 1}}  # fmt: skip
    (entry,) = parse_document(json.dumps(document).encode(), KnownSaes()).entries
    assert entry.name.startswith("a b <b>x")
    assert len(entry.name) == 128
    assert any("its name becomes" in note for note in entry.notes)
    assert entry.profile.features[0].label == "<script>"
