"""What is known about the features of SAEs: the file beside an SAE's weights, and over it what was written here.

Edits and imports are in the database, so that a file is never changed and an edit can be taken back.

Labels as JSONL, one object a line: ours, Neuronpedia's bulk export and SAEDashboard's, read and written.

Knows no database and no SAE: whether a feature exists is for whoever attaches.

Finding a feature by the words of its label, or by its number. Lexical: knows no meaning, only letters.
"""

import re
import sqlite3
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
"""Characters of a label."""
MAX_FEATURE_INDEX = 2**31 - 1
_CONTROL_CHARACTERS = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""Control characters, and those that change the direction of text."""
_FIELD_ALIASES = {
    "index": ("feature", "feature_index", "feature_idx"),
    "label": ("description", "explanation"),
    "max_act": ("maxActApprox", "max_activation"),
    "density": ("frac_nonzero", "activation_frequency"),
}
"""Ours, and what others call the same (Neuronpedia's explanations and features, SAEDashboard, miStudio)."""


class Label(msgspec.Struct, frozen=True):
    """What is known about one feature."""

    index: Annotated[int, Meta(ge=0, le=MAX_FEATURE_INDEX)]
    label: Annotated[str, Meta(max_length=MAX_LABEL_LENGTH)] = ""
    max_act: Annotated[float, Meta(ge=0)] | None = None
    """The largest activation seen when the label was made: the unit `max_act`."""
    density: Annotated[float, Meta(ge=0, le=1)] | None = None
    """Share of tokens at which the feature fires."""
    source: Annotated[str, Meta(max_length=MAX_LABEL_LENGTH)] = ""
    """Who says so: `file`, `user`, `Neuronpedia`, …"""
    edited: float | None = None
    """When it was changed here, in seconds since 1970; None: it is as its file says."""


def read_jsonl(document: bytes, source: str = "") -> list[Label]:
    """One label for each feature, by index; lines of the same feature add what those before did not say.

    `source`: of the lines that name none. Raises InvalidImport naming the line that is no label; blank ones are none.
    """
    lines = document.splitlines()
    if len(lines) > MAX_LINES:
        raise InvalidImport(f"there are {len(lines):,} lines, and at most {MAX_LINES:,} are read; split the file")
    found: dict[int, Label] = {}
    for number, line in enumerate(lines, 1):
        if line.strip():
            label = _parse_line(number, line, source)
            found[label.index] = merge_label(found[label.index], label) if label.index in found else label
    return [found[index] for index in sorted(found)]


def to_jsonl(labels: Iterable[Label]) -> bytes:
    """As `read_jsonl` reads them, without what is not known."""
    return b"".join(msgspec.json.encode(_known_fields(label)) + b"\n" for label in labels)


def merge_label(upper: Label, lower: Label | None) -> Label:
    """`upper`, and from `lower` what it does not say."""
    if lower is None:
        return upper
    return replace(
        upper,
        label=upper.label or lower.label,
        max_act=lower.max_act if upper.max_act is None else upper.max_act,
        density=lower.density if upper.density is None else upper.density,
    )


def check_label(label: Label) -> Label:
    """Raises InvalidImport for a text that a screen would not show as it is."""
    for text in (label.label, label.source):
        if _CONTROL_CHARACTERS.search(text):
            raise InvalidImport(f"the label of feature {label.index} holds a control character; take it out")
    return label


def _known_fields(label: Label) -> dict[str, Any]:
    told: dict[str, Any] = msgspec.to_builtins(label)
    return {name: value for name, value in told.items() if value not in (None, "")}


def _parse_line(number: int, line: bytes, source: str) -> Label:
    try:
        told = msgspec.json.decode(line, type=dict[str, Any])
        label = check_label(msgspec.convert(_normalize_fields(told), type=Label))
    except (msgspec.DecodeError, msgspec.ValidationError, UnicodeDecodeError, RecursionError, InvalidImport) as error:
        raise InvalidImport(f"line {number}: {error}") from error
    return label if label.source else replace(label, source=source)


def _normalize_fields(fields: dict[str, Any]) -> dict[str, Any]:
    found = {name: fields[name] for name in Label.__struct_fields__ if fields.get(name) is not None}
    for ours, theirs in _FIELD_ALIASES.items():
        other = next((fields[name] for name in theirs if fields.get(name) is not None), None)
        if ours not in found and other is not None:
            found[ours] = other
    if isinstance(index := found.get("index"), str) and index.isascii() and index.isdigit() and len(index) <= 10:
        found["index"] = int(index)  # Neuronpedia writes indices as text
    if isinstance(label := found.get("label"), str):
        found["label"] = " ".join(label.split())
    return found


_NON_WORD = re.compile(r"[\W_]+")


class _IndexedLabel(NamedTuple):
    words: str
    """Of the label, each behind a space."""
    label: Label


class LabelMatch(NamedTuple):
    """How well it fits, least first, and what was found."""

    rank: int
    length: int
    label: Label


@dataclass(frozen=True)
class LabelIndex:
    """The labels of one SAE, ready to be searched."""

    _entries: Sequence[_IndexedLabel]
    """By index."""
    _by_index: dict[int, Label]

    @classmethod
    def from_labels(cls, labels: Iterable[Label]) -> "LabelIndex":
        by_index = {label.index: label for label in sorted(labels, key=lambda label: label.index)}
        return cls(
            [_IndexedLabel(_normalize_words(label.label), label) for label in by_index.values() if label.label],
            by_index,
        )

    def search(self, text: str) -> list[LabelMatch]:
        """Every word of `text` must be in a label; all labels for an empty one.

        First the feature of that number, then labels that are just that, then those with words that begin so, then
        those that have the letters inside; the shorter first, and of those alike the lower index.
        """
        wanted = _normalize_words(text)
        inside = wanted.split()
        if text.strip() and not inside:
            return []
        starts = [f" {word}" for word in inside]
        fitting = self._entries
        for word in inside:
            fitting = [entry for entry in fitting if word in entry.words]
        found = [
            LabelMatch(_rank(words, wanted, starts), len(words) if inside else 0, label) for words, label in fitting
        ]
        return sorted(
            [*self._match_by_number(text.strip()), *found], key=itemgetter(0, 1)
        )  # those alike stay as they are

    def _match_by_number(self, text: str) -> list[LabelMatch]:
        if not (text.isascii() and text.isdigit() and len(text) <= 10):
            return []
        label = self._by_index.get(int(text))
        is_found_anyway = label is None or _normalize_words(text).strip() in _normalize_words(label.label)
        return [] if label is None or is_found_anyway else [LabelMatch(-1, 0, label)]


def _rank(words: str, query: str, prefixes: Sequence[str]) -> int:
    if words == query:
        return 0
    return 1 if all(map(words.__contains__, prefixes)) else 2


def _normalize_words(text: str) -> str:
    """Lower case, one space before each word, nothing else between them."""
    plain = unicodedata.normalize("NFKC", text).casefold()
    return _NON_WORD.sub(" ", f" {plain}").rstrip()


_LABELS_FILE = "labels.jsonl"
_NO_LABELS: Mapping[int, Label] = MappingProxyType({})
_READ = "SELECT body FROM labels WHERE sae = ?"
_WRITE = "INSERT OR REPLACE INTO labels (sae, feature, body) VALUES (?, ?, ?)"
_REMOVE = "DELETE FROM labels WHERE sae = ? AND feature = ?"


def read_labels(folder: Path) -> list[Label]:
    """Empty where there are none. Raises InvalidSae naming the line that is not a label."""
    path = folder / _LABELS_FILE
    if not path.is_file():
        return []
    try:
        return read_jsonl(path.read_bytes(), source="file")
    except InvalidImport as error:
        raise InvalidSae(f"{_LABELS_FILE}, {error}") from error


class Labels:
    """Calls from any thread; an SAE is named by its public id. The first look at an SAE reads the database."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._file_labels: dict[str, Mapping[int, Label]] = {}
        self._merged_labels: dict[str, Mapping[int, Label]] = {}
        """Files with what is laid over them."""
        self._indices: dict[str, LabelIndex] = {}
        self._lock = threading.RLock()

    def set_file_labels(self, sae: str, labels: Iterable[Label]) -> None:
        """What an SAE's own file says, in the place of what was laid before."""
        with self._lock:
            self._file_labels[sae] = {label.index: label for label in labels}
            self._invalidate(sae)

    def retain(self, saes: Container[str]) -> None:
        """The files of all others leave the memory; what was written here stays on the disk."""
        with self._lock:
            for sae in [known for known in self._file_labels if known not in saes]:
                del self._file_labels[sae]
                self._invalidate(sae)

    def all(self, sae: str) -> Mapping[int, Label]:
        with self._lock:
            if sae not in self._merged_labels:
                self._merged_labels[sae] = self._merge(sae)
            return self._merged_labels[sae]

    def get(self, sae: str, index: int) -> Label | None:
        return self.all(sae).get(index)

    def max_acts(self, sae: str) -> dict[int, float]:
        """Of the features whose largest activation is known: the unit `max_act`."""
        return {index: label.max_act for index, label in self.all(sae).items() if label.max_act}

    def search_index(self, sae: str) -> LabelIndex:
        """To search in: about 40 ms to make for 16,384 labels, 5 to 25 ms to search."""
        with self._lock:
            if sae not in self._indices:
                self._indices[sae] = LabelIndex.from_labels(self.all(sae).values())
            return self._indices[sae]

    def search(self, sae: str, text: str, limit: int = 50) -> list[Label]:
        """The best first, as `LabelIndex.search` ranks them."""
        return [found.label for found in self.search_index(sae).search(text)[:limit]]

    def put(self, sae: str, labels: Iterable[Label], source: str) -> int:
        """Lay labels over what is known, all or none; what one does not say stays as it was. → how many.

        `source`: of those that name none. Raises InvalidImport or NotStored.
        """
        with self._lock:
            before, now = self._read_edits(sae), time.time()
            laid = {
                label.index: merge_label(
                    replace(check_label(label), source=label.source or source, edited=now), before.get(label.index)
                )
                for label in labels
            }
            rows = [(sae, index, msgspec.json.encode(label).decode()) for index, label in laid.items()]
            self._database.write(lambda connection: connection.executemany(_WRITE, rows))
            self._invalidate(sae)
            return len(rows)

    def remove(self, sae: str, index: int) -> Label | None:
        """Take back what was written here about a feature; → what its file says. Raises NotStored."""
        with self._lock:
            self._database.write(lambda connection: _delete_row(connection, sae, index))
            self._invalidate(sae)
            return self.get(sae, index)

    def export(self, sae: str) -> bytes:
        """All that is known, as JSONL by index."""
        return to_jsonl(label for _, label in sorted(self.all(sae).items()))

    def _merge(self, sae: str) -> Mapping[int, Label]:
        files = self._file_labels.get(sae, _NO_LABELS)
        over = {index: merge_label(label, files.get(index)) for index, label in self._read_edits(sae).items()}
        return {**files, **over}

    def _read_edits(self, sae: str) -> dict[int, Label]:
        rows = self._database.read(_READ, (sae,))
        return {label.index: label for label in (msgspec.json.decode(body, type=Label) for (body,) in rows)}

    def _invalidate(self, sae: str) -> None:
        self._merged_labels.pop(sae, None)
        self._indices.pop(sae, None)


def _delete_row(connection: sqlite3.Connection, sae: str, index: int) -> None:
    connection.execute(_REMOVE, (sae, index))
