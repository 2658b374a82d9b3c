"""A JSON document that knows which of its leaves were read: the others are told, so that none is dropped silently."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import Any

from millm.errors import InvalidImport

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
