"""Labels beside an SAE, edits over them, and their storage."""

import contextlib
import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from millm.database import Database
from millm.errors import InvalidImport, InvalidSae
from millm.hub.labels import MAX_LABEL_LENGTH, Label, Labels, read_jsonl, read_labels, to_jsonl

FILE = [Label(3, "the sea", 4.5, 0.1, "file"), Label(9, source="file")]


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    with contextlib.closing(Database(tmp_path / "millm.db")) as opened:
        yield opened


@pytest.fixture
def labels(database: Database) -> Labels:
    """Of the SAE `a`."""
    store = Labels(database)
    store.set_file_labels("a", FILE)
    return store


def test_missing_file_gives_no_labels(tmp_path: Path) -> None:
    assert read_labels(tmp_path) == []


def test_one_label_per_line(tmp_path: Path) -> None:
    lines = ['{"index": 3, "label": "the sea", "max_act": 4.5, "density": 0.1, "tokens": ["wave"]}', "", '{"index": 9}']
    (tmp_path / "labels.jsonl").write_text("\n".join(lines))
    assert read_labels(tmp_path) == FILE


@pytest.mark.parametrize(
    "line",
    [
        "{", "[]", "3", '{"label": "no index"}', '{"index": "three"}', '{"index": -1}', '{"index": 2147483648}',
        '{"index": 3.5}', '{"index": true}', '{"index": 3, "max_act": "much"}', '{"index": 3, "max_act": -1}',
        '{"index": 3, "max_act": 1e999}', '{"index": 3, "density": 1.5}', '{"index": 3, "label": 7}',
        json.dumps({"index": 3, "label": "x" * (MAX_LABEL_LENGTH + 1)}), '{"index": 3, "label": "a\\u0000b"}',
        '{"index": 3, "label": "\\u202egnp.exe"}', '{"index": 3, "source": "\\u001b[2J"}', "[" * 2000, "\udcff",
    ],
)  # fmt: skip
def test_invalid_line_is_named(line: str, tmp_path: Path) -> None:
    content = f'{{"index": 1}}\n{line}\n'.encode(errors="surrogateescape")
    (tmp_path / "labels.jsonl").write_bytes(content)
    with pytest.raises(InvalidSae, match=r"^labels\.jsonl, line 2: "):
        read_labels(tmp_path)
    with pytest.raises(InvalidImport, match=r"^line 2: "):
        read_jsonl(content)


def test_foreign_formats_are_read() -> None:
    """Neuronpedia's bulk export (explanations, then features) and SAEDashboard's statistics: one feature each."""
    lines = [
        {"modelId": "gemma-2-2b", "layer": "20-gemmascope-res-16k", "index": "123", "description": " capital\nletters"},
        {"modelId": "gemma-2-2b", "layer": "20-gemmascope-res-16k", "index": "123", "description": "shouting"},
        {"modelId": "gemma-2-2b", "index": "123", "maxActApprox": 47.5, "frac_nonzero": 0.02},
        {"feature_index": 7, "label": None, "max_activation": 3, "activation_frequency": 0.5},
    ]
    read = read_jsonl("\n".join(map(json.dumps, lines)).encode(), "Neuronpedia")
    assert read == [
        Label(7, max_act=3.0, density=0.5, source="Neuronpedia"),
        Label(123, "capital letters", 47.5, 0.02, "Neuronpedia"),
    ]


words = st.text(st.characters(exclude_categories=["Cc", "Cs", "Cf", "Z"]), max_size=20)
any_label = st.builds(
    Label,
    st.integers(0, 2**31 - 1),
    st.lists(words.filter(bool), max_size=4).map(" ".join),
    st.none() | st.floats(0, 1e6),
    st.none() | st.floats(0, 1),
    words,
    st.none() | st.floats(0, 1e12),
)


@given(st.lists(any_label, unique_by=lambda label: label.index, max_size=20))
def test_jsonl_round_trips(labels: list[Label]) -> None:
    assert read_jsonl(to_jsonl(labels)) == sorted(labels, key=lambda label: label.index)


@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_arbitrary_bytes_raise_invalid_import_only(document: bytes) -> None:
    with contextlib.suppress(InvalidImport):
        read_jsonl(document)


def test_edits_override_the_file_and_persist(labels: Labels, database: Database) -> None:
    assert labels.put("a", [Label(3, "waves"), Label(5, "a ship", 2.0)], "user") == 2
    for later in (labels, reopened(database)):
        merged = {index: (label.label, label.max_act, label.source) for index, label in later.all("a").items()}
        assert merged == {3: ("waves", 4.5, "user"), 5: ("a ship", 2.0, "user"), 9: ("", None, "file")}
        assert later.max_acts("a") == {3: 4.5, 5: 2.0}
        assert later.all("b") == {}
    assert labels.remove("a", 3) == FILE[0]
    assert labels.remove("a", 5) is None
    assert labels.all("a") == {label.index: label for label in FILE}


def test_edit_completes_an_import(labels: Labels) -> None:
    labels.put("a", [Label(4, "imported", 7.0, source="Neuronpedia")], "miStudio")
    labels.put("a", [Label(4, "edited")], "user")
    label = labels.get("a", 4)
    assert label is not None
    assert (label.label, label.max_act, label.source) == ("edited", 7.0, "user")


def test_put_is_atomic(labels: Labels) -> None:
    with pytest.raises(InvalidImport, match="feature 6 holds a control character"):
        labels.put("a", [Label(5, "fine"), Label(6, "not\x07fine")], "user")
    assert labels.get("a", 5) is None


def test_exported_labels_can_be_imported(labels: Labels) -> None:
    labels.put("a", [Label(3, "waves")], "user")
    labels.put("b", read_jsonl(labels.export("a")), "import")
    assert [(one.index, one.label, one.max_act, one.source) for one in labels.all("b").values()] == [
        (3, "waves", 4.5, "user"),
        (9, "", None, "file"),
    ]


def test_retain_drops_file_labels_of_other_saes(labels: Labels) -> None:
    labels.put("a", [Label(5, "a ship")], "user")
    labels.retain({"b"})
    assert set(labels.all("a")) == {5}


def test_concurrent_edits_are_all_stored(labels: Labels) -> None:
    def put(first: int) -> None:
        for index in range(first, first + 10):
            labels.put("a", [Label(100 + index, f"number {index}")], "user")
            labels.search("a", "number")

    threads = [threading.Thread(target=put, args=(10 * start,)) for start in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(labels.search("a", "number", 100)) == 40


def reopened(database: Database) -> Labels:
    again = Labels(database)
    again.set_file_labels("a", FILE)
    return again
