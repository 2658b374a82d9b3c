"""The parsed document of an import: a JSON tree that records which leaves were read, so that none is dropped silently.

A ZIP archive is read into memory as one JSON document, {file name: content}, and never unpacked to disk.
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

import msgspec

from millm.errors import InvalidImport
from millm.hub.labels import Label
from millm.profiles.schema import Profile

MAX_ARCHIVE_FILES = 100_000
MAX_ARCHIVE_BYTES = 64 * 2**20
"""Sum of the uncompressed JSON files."""


def read_archive(data: bytes) -> tuple[dict[str, Any], tuple[str, ...]]:
    """(JSON files by name, names of the other files). Raises InvalidImport."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            files = [info for info in archive.infolist() if not info.is_dir()]
            _check_archive(files)
            documents = {info.filename: _read_json(archive, info) for info in files if _is_json(info)}
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise InvalidImport("the ZIP archive is damaged, encrypted or packed in a way that is not known") from error
    return documents, tuple(info.filename for info in files if info.filename not in documents)


def _is_json(info: zipfile.ZipInfo) -> bool:
    return info.filename.endswith(".json")


def _check_archive(files: list[zipfile.ZipInfo]) -> None:
    if len(files) > MAX_ARCHIVE_FILES:
        raise InvalidImport(f"the ZIP archive holds {len(files):,} files, and at most {MAX_ARCHIVE_FILES:,} are read")
    for info in files:
        parts = info.filename.replace("\\", "/").split("/")
        if info.filename.startswith("/") or ".." in parts or ":" in parts[0] or not info.filename.isprintable():
            raise InvalidImport(f"the ZIP archive holds a file that would lie outside it: {info.filename[:80]!r}")
    if sum(info.file_size for info in files if _is_json(info)) > MAX_ARCHIVE_BYTES:
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
    """Strict JSON: NaN, Infinity and duplicate keys raise InvalidImport."""
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
    values = dict(pairs)
    if len(values) < len(pairs):
        raise ValueError("duplicate key")
    return values


_IDENTIFIER = re.compile(r"[A-Za-z_][\w-]*")
JsonPath = tuple[str | int, ...]


def format_path(path: JsonPath) -> str:
    """`$.features[0].index`."""
    parts = (f"[{part}]" if isinstance(part, int) else _format_key(part) for part in path)
    return "$" + "".join(parts)


def _format_key(key: str) -> str:
    return f".{key}" if _IDENTIFIER.fullmatch(key) else f"[{key[:80]!r}]"


class ReadTracker:
    """The paths that were read, and notes about some of them; shared by all nodes of a document."""

    def __init__(self) -> None:
        self.read_paths: set[JsonPath] = set()
        self.notes: list[tuple[JsonPath, str]] = []


class Node:
    """A value of the document and its path. Reading a leaf of the wrong type raises InvalidImport."""

    def __init__(self, value: Any, path: JsonPath = (), tracker: ReadTracker | None = None) -> None:
        self.value, self.path = value, path
        self.tracker = tracker or ReadTracker()

    def __truediv__(self, key: str) -> Node:
        """The field `key`; a null node where it is missing."""
        value = self.value.get(key) if isinstance(self.value, dict) else None
        return Node(value, (*self.path, key), self.tracker)

    def __iter__(self) -> Iterator[Node]:
        """The items of a list; empty for other values."""
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
        text = self.text()
        if not text:
            raise self.import_error("is required: a text")
        return text

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
        """The value; every leaf below counts as read."""
        self.tracker.read_paths |= {path for path, _ in leaves(self.value, self.path)}
        return self.value

    def _mark_read(self) -> None:
        self.tracker.read_paths.add(self.path)


def leaves(value: Any, path: JsonPath = ()) -> Iterator[tuple[JsonPath, Any]]:
    """(path, value) of every value that is neither a container nor null."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from leaves(item, (*path, key))
    elif isinstance(value, list):
        for number, item in enumerate(value):
            yield from leaves(item, (*path, number))
    elif value is not None:
        yield path, value


def unread_paths(root: Node) -> list[JsonPath]:
    """The topmost paths below which nothing was read."""
    read_paths = {path[:length] for path in root.tracker.read_paths for length in range(len(path) + 1)}
    return list(_find_unread(root.value, root.path, read_paths))


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


class UnresolvedReference(msgspec.Struct, frozen=True):
    """An id that must be resolved, or an SAE that must be attached, before an entry can be imported."""

    path: str
    """JSON path: `$.sae_id`."""
    kind: Literal["sae", "feature", "vector"]
    id: str
    """As written in the document."""
    reason: str


@dataclass(frozen=True)
class ResidualVector:
    """A direction in the residual stream, to be decomposed into features of an attached SAE."""

    path: str
    hook_point: str
    """SAELens' name."""
    layer: int
    values: tuple[float, ...]
    """(d_model,), in residual units, multiplied by the strength."""


@dataclass(frozen=True)
class DocumentEntry:
    """One profile, set of labels or unusable part of a document."""

    path: str
    becomes: EntryKind
    name: str
    profile: Profile | None = None
    labels: tuple[Label, ...] = ()
    sae: str | None = None
    """Library id of the SAE that `labels` belong to."""
    vectors: tuple[ResidualVector, ...] = ()
    notes: tuple[str, ...] = ()
    """`path: what is changed or left out`."""
    unresolved: tuple[UnresolvedReference, ...] = ()
    incompatibility: str | None = None
    """Why the profile cannot be applied now."""


@dataclass(frozen=True)
class ParsedDocument:
    format: str
    entries: tuple[DocumentEntry, ...]
    notes: tuple[str, ...] = ()
    """Notes that belong to no entry."""


@dataclass(frozen=True)
class KnownSaes:
    """Which library SAE other tools' ids stand for."""

    ids: dict[str, str] = field(default_factory=dict)
    """Foreign id → library id."""
