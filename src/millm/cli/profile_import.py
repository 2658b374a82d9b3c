"""What is imported: a document from a file, from stdin or behind an address; and what becomes of each thing in it."""

import sys
from pathlib import Path
from typing import Literal

import msgspec

from millm.errors import CannotStart

OnConflict = Literal["refuse", "rename", "replace", "skip"]
ImportAction = Literal["added", "replaced", "skipped", "nothing"]


class SourceDocument(msgspec.Struct, frozen=True):
    name: str
    content: bytes


class UnresolvedSaeRow(msgspec.Struct, frozen=True):
    """What has to be said before something can be imported."""

    path: str
    id: str
    reason: str


class ImportRow(msgspec.Struct, frozen=True, kw_only=True):
    """What one thing in a document has become, or would."""

    path: str
    """JSON path."""
    name: str
    did: ImportAction | None = None
    """None: not yet."""
    becomes: str = "profile"
    notes: tuple[str, ...] = ()
    unresolved: tuple[UnresolvedSaeRow, ...] = ()
    misfit: str | None = None


def read_document(source: str) -> SourceDocument:
    """`-` is stdin; of an address the address itself, which the server understands."""
    if source == "-":
        return SourceDocument("stdin", sys.stdin.buffer.read())
    if source.startswith(("http://", "https://")):
        return SourceDocument(source, source.encode())
    try:
        return SourceDocument(Path(source).name, Path(source).read_bytes())
    except OSError as error:
        raise CannotStart(f"{source} cannot be read ({error.strerror})") from error
