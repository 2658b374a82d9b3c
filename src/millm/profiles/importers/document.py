"""A JSON document that knows which of its leaves were read: the others are told, so that none is dropped silently."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import Any

from millm.errors import InvalidImport

_PLAIN = re.compile(r"[A-Za-z_][\w-]*")
Path = tuple[str | int, ...]


def told(path: Path) -> str:
    """`$.features[0].index`."""
    parts = (f"[{part}]" if isinstance(part, int) else _named(part) for part in path)
    return "$" + "".join(parts)


def _named(key: str) -> str:
    return f".{key}" if _PLAIN.fullmatch(key) else f"[{key[:80]!r}]"


class Ledger:
    """Leaves that were read, and what is to be said of some of them."""

    def __init__(self) -> None:
        self.read: set[Path] = set()
        self.notes: list[tuple[Path, str]] = []


class Node:
    """A value of the document and its place there. Reading a leaf of the wrong type raises InvalidImport."""

    def __init__(self, value: Any, path: Path = (), ledger: Ledger | None = None) -> None:
        self.value, self.path = value, path
        self.ledger = ledger or Ledger()

    def __truediv__(self, key: str) -> Node:
        """Its field; null where it has none."""
        value = self.value.get(key) if isinstance(self.value, dict) else None
        return Node(value, (*self.path, key), self.ledger)

    def __iter__(self) -> Iterator[Node]:
        """The items of a list; none of what is no list."""
        for number, value in enumerate(self.value if isinstance(self.value, list) else ()):
            yield Node(value, (*self.path, number), self.ledger)

    def fields(self) -> Iterator[tuple[str, Node]]:
        for key in self.value if isinstance(self.value, dict) else ():
            yield key, self / key

    def __contains__(self, key: str) -> bool:
        return isinstance(self.value, dict) and key in self.value

    @property
    def place(self) -> str:
        return told(self.path)

    def note(self, text: str) -> None:
        self.ledger.notes.append((self.path, text))

    def refused(self, why: str) -> InvalidImport:
        return InvalidImport(f"{self.place} {why}")

    def text(self) -> str | None:
        self._take()
        if self.value is not None and not isinstance(self.value, str):
            raise self.refused("has to be a text")
        return self.value

    def required(self) -> str:
        found = self.text()
        if not found:
            raise self.refused("is required: a text")
        return found

    def number(self) -> float:
        self._take()
        if isinstance(self.value, bool) or not isinstance(self.value, int | float):
            raise self.refused("has to be a number")
        try:
            value = float(self.value)
        except OverflowError as error:
            raise self.refused("is too large a number") from error
        if not math.isfinite(value):
            raise self.refused("has to be a finite number")
        return value

    def whole(self, most: int = 2**31 - 1) -> int:
        self._take()
        if isinstance(self.value, bool) or not isinstance(self.value, int) or not 0 <= self.value <= most:
            raise self.refused(f"has to be a whole number from 0 to {most}")
        return self.value

    def all(self) -> Any:
        """The value with everything in it, read as a whole."""
        self.ledger.read |= {path for path, _ in leaves(self.value, self.path)}
        return self.value

    def _take(self) -> None:
        self.ledger.read.add(self.path)


def leaves(value: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Every value that is no container, save null, which says nothing."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from leaves(item, (*path, key))
    elif isinstance(value, list):
        for number, item in enumerate(value):
            yield from leaves(item, (*path, number))
    elif value is not None:
        yield path, value


def left_out(root: Node) -> list[Path]:
    """The largest parts of the document of which nothing was read."""
    return list(_unread(root.value, root.path, {read[:n] for read in root.ledger.read for n in range(len(read) + 1)}))


def _unread(value: Any, path: Path, read: set[Path]) -> Iterator[Path]:
    if path not in read:
        if any(True for _ in leaves(value)):
            yield path
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _unread(item, (*path, key), read)
    elif isinstance(value, list):
        for number, item in enumerate(value):
            yield from _unread(item, (*path, number), read)
