"""Feature labels: JSONL files beside an SAE's weights, edits over them in the database, and search by words.

Files never change, so that an edit can be undone. Reads miLLM's JSONL, Neuronpedia's bulk export and SAEDashboard's.
"""

import re
import threading
import time
import unicodedata
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, NamedTuple

import msgspec
from msgspec import Meta
from msgspec.structs import replace

from millm.database import Database
from millm.errors import InvalidImport, InvalidSae

MAX_LINES = 2_000_000
MAX_LABEL_LENGTH = 500
"""Characters."""
MAX_FEATURE_INDEX = 2**31 - 1
_CONTROL_CHARACTERS = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""Control characters, and those that change the direction of text."""
_FIELD_ALIASES = {
    "index": ("feature", "feature_index", "feature_idx"),
    "label": ("description", "explanation"),
    "max_act": ("maxActApprox", "max_activation"),
    "density": ("frac_nonzero", "activation_frequency"),
}
"""Our field → its names elsewhere (Neuronpedia's explanations and features, SAEDashboard, miStudio)."""


class Label(msgspec.Struct, frozen=True):
    """The label and statistics of one feature."""

    index: Annotated[int, Meta(ge=0, le=MAX_FEATURE_INDEX)]
    label: Annotated[str, Meta(max_length=MAX_LABEL_LENGTH)] = ""
    max_act: Annotated[float, Meta(ge=0)] | None = None
    """The largest activation seen when the label was written: the unit `max_act`."""
    density: Annotated[float, Meta(ge=0, le=1)] | None = None
    """Share of tokens at which the feature fires."""
    source: Annotated[str, Meta(max_length=MAX_LABEL_LENGTH)] = ""
    """The author: `file`, `user`, `Neuronpedia`, …"""
    edited: float | None = None
    """Seconds since 1970 of an edit in miLLM; None: unchanged from the file."""


def read_jsonl(document: bytes, source: str = "") -> list[Label]:
    """One label for each feature, by index; later lines of a feature fill the fields that earlier ones lack.

    `source`: for lines without one. Raises InvalidImport naming the line that is no label; blank lines are skipped.
    """
    lines = document.splitlines()
    if len(lines) > MAX_LINES:
        raise InvalidImport(f"there are {len(lines):,} lines, and at most {MAX_LINES:,} are read; split the file")
    labels: dict[int, Label] = {}
    for number, line in enumerate(lines, 1):
        if line.strip():
            label = _parse_line(number, line, source)
            labels[label.index] = merge_label(labels[label.index], label) if label.index in labels else label
    return [labels[index] for index in sorted(labels)]


def to_jsonl(labels: Iterable[Label]) -> bytes:
    """The format of `read_jsonl`, without unknown fields."""
    fields = (msgspec.to_builtins(label) for label in labels)
    known = ({name: value for name, value in label.items() if value not in (None, "")} for label in fields)
    return b"".join(msgspec.json.encode(label) + b"\n" for label in known)


def merge_label(upper: Label, lower: Label | None) -> Label:
    """`upper`, its unset fields filled from `lower`."""
    if lower is None:
        return upper
    return replace(
        upper,
        label=upper.label or lower.label,
        max_act=lower.max_act if upper.max_act is None else upper.max_act,
        density=lower.density if upper.density is None else upper.density,
    )


def check_label(label: Label) -> Label:
    """Raises InvalidImport for text with control characters."""
    for text in (label.label, label.source):
        if _CONTROL_CHARACTERS.search(text):
            raise InvalidImport(f"the label of feature {label.index} holds a control character; take it out")
    return label


def _parse_line(number: int, line: bytes, source: str) -> Label:
    try:
        fields = msgspec.json.decode(line, type=dict[str, Any])
        label = check_label(msgspec.convert(_normalize_fields(fields), type=Label))
    except (msgspec.DecodeError, msgspec.ValidationError, UnicodeDecodeError, RecursionError, InvalidImport) as error:
        raise InvalidImport(f"line {number}: {error}") from error
    return label if label.source else replace(label, source=source)


def _normalize_fields(fields: dict[str, Any]) -> dict[str, Any]:
    known = {name: fields[name] for name in Label.__struct_fields__ if fields.get(name) is not None}
    for name, aliases in _FIELD_ALIASES.items():
        value = next((fields[alias] for alias in aliases if fields.get(alias) is not None), None)
        if value is not None:
            known.setdefault(name, value)
    if isinstance(index := known.get("index"), str) and index.isascii() and index.isdigit() and len(index) <= 10:
        known["index"] = int(index)  # Neuronpedia writes indices as text
    if isinstance(label := known.get("label"), str):
        known["label"] = " ".join(label.split())
    return known


_NON_WORD = re.compile(r"[\W_]+")


class LabelMatch(NamedTuple):
    """Sorted by rank and length, least first."""

    rank: int
    length: int
    label: Label


@dataclass(frozen=True)
class LabelIndex:
    """A search index over the labels of one SAE."""

    _entries: Sequence[tuple[str, Label]]
    """(normalised words, label), by feature index."""
    _by_index: dict[int, Label]

    @classmethod
    def from_labels(cls, labels: Iterable[Label]) -> "LabelIndex":
        by_index = {label.index: label for label in sorted(labels, key=lambda label: label.index)}
        entries = [(_normalize_words(label.label), label) for label in by_index.values() if label.label]
        return cls(entries, by_index)

    def search(self, text: str) -> list[LabelMatch]:
        """Labels with every word of `text`; all labels for an empty one.

        Order: the feature of that number, exact labels, labels with words that start so, labels that contain the
        letters; within each the shorter first, then the lower index.
        """
        query = _normalize_words(text)
        words = query.split()
        if text.strip() and not words:
            return []
        prefixes = [f" {word}" for word in words]
        entries = self._entries
        for word in words:
            entries = [entry for entry in entries if word in entry[0]]
        matches = [
            LabelMatch(_rank(known, query, prefixes), len(known) if words else 0, label) for known, label in entries
        ]
        return sorted([*self._match_by_number(text.strip()), *matches], key=itemgetter(0, 1))  # stable: by index

    def _match_by_number(self, text: str) -> list[LabelMatch]:
        if not (text.isascii() and text.isdigit() and len(text) <= 10):
            return []
        label = self._by_index.get(int(text))
        if label is None or _normalize_words(text).strip() in _normalize_words(label.label):  # found by words
            return []
        return [LabelMatch(-1, 0, label)]


def _rank(words: str, query: str, prefixes: Sequence[str]) -> int:
    if words == query:
        return 0
    return 1 if all(map(words.__contains__, prefixes)) else 2


def _normalize_words(text: str) -> str:
    """Lower case, one space before each word, no other separators."""
    plain = unicodedata.normalize("NFKC", text).casefold()
    return _NON_WORD.sub(" ", f" {plain}").rstrip()


_LABELS_FILE = "labels.jsonl"
_NO_LABELS: Mapping[int, Label] = MappingProxyType({})
_READ = "SELECT body FROM labels WHERE sae = ?"
_WRITE = "INSERT OR REPLACE INTO labels (sae, feature, body) VALUES (?, ?, ?)"
_REMOVE = "DELETE FROM labels WHERE sae = ? AND feature = ?"


def read_labels(folder: Path) -> list[Label]:
    """Empty without a file. Raises InvalidSae naming the line that is no label."""
    path = folder / _LABELS_FILE
    if not path.is_file():
        return []
    try:
        return read_jsonl(path.read_bytes(), source="file")
    except InvalidImport as error:
        raise InvalidSae(f"{_LABELS_FILE}, {error}") from error


class Labels:
    """Thread-safe; SAEs by public id. The first access to an SAE reads the database."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._file_labels: dict[str, Mapping[int, Label]] = {}
        self._merged_labels: dict[str, Mapping[int, Label]] = {}
        """Files with the edits over them."""
        self._indices: dict[str, LabelIndex] = {}
        self._lock = threading.RLock()

    def set_file_labels(self, sae: str, labels: Iterable[Label]) -> None:
        """Replaces the labels of an SAE's own file."""
        with self._lock:
            self._file_labels[sae] = {label.index: label for label in labels}
            self._invalidate(sae)

    def retain(self, saes: Container[str]) -> None:
        """Drop the file labels of all other SAEs from memory; edits stay in the database."""
        with self._lock:
            for sae in [known for known in self._file_labels if known not in saes]:
                del self._file_labels[sae]
                self._invalidate(sae)

    def all(self, sae: str) -> Mapping[int, Label]:
        with self._lock:
            if sae not in self._merged_labels:
                files = self._file_labels.get(sae, _NO_LABELS)
                edits = {index: merge_label(edit, files.get(index)) for index, edit in self._read_edits(sae).items()}
                self._merged_labels[sae] = {**files, **edits}
            return self._merged_labels[sae]

    def get(self, sae: str, index: int) -> Label | None:
        return self.all(sae).get(index)

    def max_acts(self, sae: str) -> dict[int, float]:
        """Feature → largest activation, where known: the unit `max_act`."""
        return {index: label.max_act for index, label in self.all(sae).items() if label.max_act}

    def search_index(self, sae: str) -> LabelIndex:
        """About 40 ms to build for 16,384 labels, 5 to 25 ms to search."""
        with self._lock:
            if sae not in self._indices:
                self._indices[sae] = LabelIndex.from_labels(self.all(sae).values())
            return self._indices[sae]

    def search(self, sae: str, text: str, limit: int = 50) -> list[Label]:
        """In the order of `LabelIndex.search`."""
        return [match.label for match in self.search_index(sae).search(text)[:limit]]

    def put(self, sae: str, labels: Iterable[Label], source: str) -> int:
        """Write edits over the known labels, all or none; unset fields keep their values. Returns their number.

        `source`: for labels without one. Raises InvalidImport or NotStored.
        """
        with self._lock:
            before, now = self._read_edits(sae), time.time()
            rows = []
            for label in labels:
                edit = replace(check_label(label), source=label.source or source, edited=now)
                rows.append(
                    (sae, label.index, msgspec.json.encode(merge_label(edit, before.get(label.index))).decode())
                )
            self._database.write(lambda connection: connection.executemany(_WRITE, rows))
            self._invalidate(sae)
            return len(rows)

    def remove(self, sae: str, index: int) -> Label | None:
        """Undo the edits of a feature; returns the label of the file. Raises NotStored."""
        with self._lock:
            self._database.write(lambda connection: connection.execute(_REMOVE, (sae, index)))
            self._invalidate(sae)
            return self.get(sae, index)

    def export(self, sae: str) -> bytes:
        """All known labels as JSONL, by index."""
        return to_jsonl(label for _, label in sorted(self.all(sae).items()))

    def _read_edits(self, sae: str) -> dict[int, Label]:
        rows = self._database.read(_READ, (sae,))
        return {label.index: label for label in (msgspec.json.decode(body, type=Label) for (body,) in rows)}

    def _invalidate(self, sae: str) -> None:
        self._merged_labels.pop(sae, None)
        self._indices.pop(sae, None)
