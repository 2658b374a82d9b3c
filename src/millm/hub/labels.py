"""What is known about the features of SAEs: the file beside an SAE's weights, and over it what was written here.

Edits and imports are in the database, so that a file is never changed and an edit can be taken back.
"""

import sqlite3
import threading
import time
from collections.abc import Container, Iterable, Mapping
from pathlib import Path
from types import MappingProxyType

import msgspec
from msgspec.structs import replace

from millm.database import Database
from millm.errors import InvalidImport, InvalidSae
from millm.hub.label_lines import Label, check_label, merge_label, read_jsonl, to_jsonl
from millm.hub.label_search import LabelIndex

__all__ = ["Label", "Labels", "read_labels"]

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
