"""A JSON document that knows which of its leaves were read: the others are told, so that none is dropped silently.

A ZIP archive as one JSON document, {file name: its JSON}: in memory, within limits, nothing unpacked to disk.

What an import finds, as plain values: entries, what they become, and all that cannot be carried over.
"""

from __future__ import annotations

import io
import json
import math
import re
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from millm.errors import InvalidImport
from millm.hub.labels import Label
from millm.profiles.schema import Profile

MAX_ARCHIVE_FILES = 100_000
MAX_ARCHIVE_BYTES = 64 * 2**20
"""Of all JSON files of an archive, unpacked."""


def read_archive(data: bytes) -> tuple[dict[str, Any], tuple[str, ...]]:
    """→ the JSON files, and the names of the others. Raises InvalidImport."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            files = [info for info in archive.infolist() if not info.is_dir()]
            _check_archive(files)
            told = [info for info in files if info.filename.endswith(".json")]
            found = {info.filename: _read_json(archive, info) for info in told}
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise InvalidImport("the ZIP archive is damaged, encrypted or packed in a way that is not known") from error
    return found, tuple(info.filename for info in files if info.filename not in found)


def _check_archive(files: list[zipfile.ZipInfo]) -> None:
    if len(files) > MAX_ARCHIVE_FILES:
        raise InvalidImport(f"the ZIP archive holds {len(files):,} files, and at most {MAX_ARCHIVE_FILES:,} are read")
    for info in files:
        parts = info.filename.replace("\\", "/").split("/")
        if info.filename.startswith("/") or ".." in parts or ":" in parts[0] or not info.filename.isprintable():
            raise InvalidImport(f"the ZIP archive holds a file that would lie outside it: {info.filename[:80]!r}")
    if sum(info.file_size for info in files if info.filename.endswith(".json")) > MAX_ARCHIVE_BYTES:
        raise InvalidImport(
            f"the JSON files of the ZIP archive have more than {MAX_ARCHIVE_BYTES // 2**20} MiB unpacked"
        )
    names = [info.filename for info in files]
    if len(set(names)) < len(names):
        raise InvalidImport("the ZIP archive holds two files of one name")


def _read_json(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Any:
    with archive.open(info) as file:
        data = file.read(info.file_size + 1)
    if len(data) > info.file_size:
        raise InvalidImport(f"{info.filename[:80]!r} in the ZIP archive is larger than it says")
    return parse_json(data, info.filename)


def parse_json(data: bytes, name: str) -> Any:
    """JSON that holds no NaN, no Infinity and no key twice. Raises InvalidImport."""
    try:
        return json.loads(data, parse_constant=_reject_constant, object_pairs_hook=_reject_duplicate_keys)
    except RecursionError as error:
        raise InvalidImport(f"{name[:80]} is nested too deeply") from error
    except ValueError as error:  # not UTF-8 either
        raise InvalidImport(
            f"{name[:80]} is no JSON: it has to be UTF-8, without NaN, Infinity or a key twice"
        ) from error


def _reject_constant(constant: str) -> Any:
    raise ValueError(constant)


def _reject_duplicate_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key is there twice")
    return found


_IDENTIFIER = re.compile(r"[A-Za-z_][\w-]*")
JsonPath = tuple[str | int, ...]


def format_path(path: JsonPath) -> str:
    """`$.features[0].index`."""
    parts = (f"[{part}]" if isinstance(part, int) else _format_key(part) for part in path)
    return "$" + "".join(parts)


def _format_key(key: str) -> str:
    return f".{key}" if _IDENTIFIER.fullmatch(key) else f"[{key[:80]!r}]"


class ReadTracker:
    """Leaves that were read, and what is to be said of some of them."""

    def __init__(self) -> None:
        self.read_paths: set[JsonPath] = set()
        self.notes: list[tuple[JsonPath, str]] = []


class Node:
    """A value of the document and its place there. Reading a leaf of the wrong type raises InvalidImport."""

    def __init__(self, value: Any, path: JsonPath = (), tracker: ReadTracker | None = None) -> None:
        self.value, self.path = value, path
        self.tracker = tracker or ReadTracker()

    def __truediv__(self, key: str) -> Node:
        """Its field; null where it has none."""
        value = self.value.get(key) if isinstance(self.value, dict) else None
        return Node(value, (*self.path, key), self.tracker)

    def __iter__(self) -> Iterator[Node]:
        """The items of a list; none of what is no list."""
        for number, value in enumerate(self.value if isinstance(self.value, list) else ()):
            yield Node(value, (*self.path, number), self.tracker)

    def fields(self) -> Iterator[tuple[str, Node]]:
        for key in self.value if isinstance(self.value, dict) else ():
            yield key, self / key

    def __contains__(self, key: str) -> bool:
        return isinstance(self.value, dict) and key in self.value

    @property
    def location(self) -> str:
        return format_path(self.path)

    def note(self, text: str) -> None:
        self.tracker.notes.append((self.path, text))

    def import_error(self, reason: str) -> InvalidImport:
        return InvalidImport(f"{self.location} {reason}")

    def text(self) -> str | None:
        self._mark_read()
        if self.value is not None and not isinstance(self.value, str):
            raise self.import_error("has to be a text")
        return self.value

    def required_text(self) -> str:
        found = self.text()
        if not found:
            raise self.import_error("is required: a text")
        return found

    def number(self) -> float:
        self._mark_read()
        if isinstance(self.value, bool) or not isinstance(self.value, int | float):
            raise self.import_error("has to be a number")
        try:
            value = float(self.value)
        except OverflowError as error:
            raise self.import_error("is too large a number") from error
        if not math.isfinite(value):
            raise self.import_error("has to be a finite number")
        return value

    def integer(self, maximum: int = 2**31 - 1) -> int:
        self._mark_read()
        if isinstance(self.value, bool) or not isinstance(self.value, int) or not 0 <= self.value <= maximum:
            raise self.import_error(f"has to be a whole number from 0 to {maximum}")
        return self.value

    def read_all(self) -> Any:
        """The value with everything in it, read as a whole."""
        self.tracker.read_paths |= {path for path, _ in leaves(self.value, self.path)}
        return self.value

    def _mark_read(self) -> None:
        self.tracker.read_paths.add(self.path)


def leaves(value: Any, path: JsonPath = ()) -> Iterator[tuple[JsonPath, Any]]:
    """Every value that is no container, save null, which says nothing."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from leaves(item, (*path, key))
    elif isinstance(value, list):
        for number, item in enumerate(value):
            yield from leaves(item, (*path, number))
    elif value is not None:
        yield path, value


def unread_paths(root: Node) -> list[JsonPath]:
    """The largest parts of the document of which nothing was read."""
    return list(
        _find_unread(
            root.value, root.path, {read[:n] for read in root.tracker.read_paths for n in range(len(read) + 1)}
        )
    )


def _find_unread(value: Any, path: JsonPath, read_paths: set[JsonPath]) -> Iterator[JsonPath]:
    if path not in read_paths:
        if any(True for _ in leaves(value)):
            yield path
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _find_unread(item, (*path, key), read_paths)
    elif isinstance(value, list):
        for number, item in enumerate(value):
            yield from _find_unread(item, (*path, number), read_paths)


EntryKind = Literal["profile", "labels", "nothing"]


@dataclass(frozen=True)
class UnresolvedImportItem:
    """Something that has to be said before an entry can be taken in."""

    path: str
    """In the document: `$.sae_id`."""
    kind: Literal["sae", "feature", "vector"]
    id: str
    """As the document calls it."""
    reason: str


@dataclass(frozen=True)
class ResidualVector:
    """A direction in the residual stream, to be told as features of an SAE that is attached."""

    path: str
    hook_point: str
    """As SAELens names it."""
    layer: int
    values: tuple[float, ...]
    """In residual units, the strength multiplied in."""


@dataclass(frozen=True)
class DocumentEntry:
    """One thing of a document."""

    path: str
    becomes: EntryKind
    name: str
    profile: Profile | None = None
    labels: tuple[Label, ...] = ()
    sae: str | None = None
    """Whose labels these are: our id."""
    vectors: tuple[ResidualVector, ...] = ()
    notes: tuple[str, ...] = ()
    """`path: what is changed or left out`."""
    unresolved: tuple[UnresolvedImportItem, ...] = ()
    incompatibility: str | None = None
    """Why it could not be applied now."""


@dataclass(frozen=True)
class ParsedDocument:
    """All that a document holds."""

    format: str
    entries: tuple[DocumentEntry, ...]
    notes: tuple[str, ...] = ()
    """Of what belongs to no entry."""


@dataclass(frozen=True)
class KnownSaes:
    """What is known here of other tools' SAEs."""

    ids: dict[str, str] = field(default_factory=dict)
    """Foreign id → id of an SAE of ours."""
