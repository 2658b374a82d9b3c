"""Parses a document of any supported tool: detects the format by content and reads every entry of it."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from millm.errors import InvalidImport
from millm.profiles.formats import gguf, goodfire, lm_eval, millm, mistudio, neuronpedia
from millm.profiles.formats.document import (
    DocumentEntry,
    KnownSaes,
    Node,
    ParsedDocument,
    format_path,
    parse_json,
    read_archive,
    unread_paths,
)

MAX_BYTES = 2**20
"""Of a JSON or CSV document."""
MAX_DEPTH = 64
MAX_ENTRIES = 1000
_MAX_NOTES = 50
"""Notes of one kind; more are collapsed into one."""


@dataclass(frozen=True)
class DocumentFormat:
    """Detection and reader of one tool's documents."""

    name: str
    matches: Callable[[Node], bool]
    read_entries: Callable[[Node, KnownSaes], list[DocumentEntry]]


DOCUMENT_FORMATS = (
    DocumentFormat(lm_eval.FORMAT, lm_eval.matches, lm_eval.read_entries),
    DocumentFormat(mistudio.LABELS_FORMAT, mistudio.matches_labels, mistudio.read_label_entries),
    DocumentFormat(goodfire.FORMAT, goodfire.matches, goodfire.read_entries),
    DocumentFormat(neuronpedia.FORMAT, neuronpedia.matches, neuronpedia.read_entries),
    DocumentFormat(mistudio.FORMAT, mistudio.matches, mistudio.read_entries),
    DocumentFormat(millm.FORMAT, millm.matches, millm.read_entries),
    DocumentFormat(millm.PEER_FORMAT, millm.matches_peer, millm.read_peer_entries),
)
"""The first that matches wins."""
_SUPPORTED_DOCUMENTS = (
    "a profile of miLLM's, a saved experiment or export of miStudio's, JSON or a feature's address of Neuronpedia's,"
    " a steered CSV file of lm-eval's, a variant of Goodfire's, or a GGUF control vector"
)


def parse_document(data: bytes, known: KnownSaes) -> ParsedDocument:
    """Raises InvalidImport where no part of the document can be read."""
    if data.startswith(b"GGUF"):
        return ParsedDocument(gguf.FORMAT, tuple(gguf.read_gguf_entries(data)))
    if data.startswith(b"PK"):
        files, others = read_archive(data)
        notes = tuple(f"{name[:200]}: left out: an SAE comes with `millm import`" for name in others)
        return _parse_root(Node(files), known, notes)
    if len(data) > MAX_BYTES:
        raise InvalidImport(f"a JSON or CSV document has at most {MAX_BYTES // 2**20} MiB")
    return _parse_root(Node(_parse_text(data)), known, ())


def _parse_text(data: bytes) -> object:
    text = data.lstrip(b"\xef\xbb\xbf \t\r\n")
    if text.startswith((b"{", b"[")):
        document = parse_json(text, "the document")
        _check_depth(document)
        return document
    try:
        plain = text.decode().strip()
    except UnicodeDecodeError as error:
        raise InvalidImport("the document is not UTF-8") from error
    if re.match(r"https?://", plain):
        return {"neuronpedia": plain}
    if "feature_index" in plain.partition("\n")[0]:
        return lm_eval.parse_csv(plain)
    raise InvalidImport(f"the document is none of those that are known: {_SUPPORTED_DOCUMENTS}")


def _check_depth(document: object) -> None:
    level: list[Any] = [document]
    for _ in range(MAX_DEPTH):
        if not level:
            return
        children = [value.values() if isinstance(value, dict) else value for value in level]
        level = [child for values in children for child in values if isinstance(child, dict | list)]
    raise InvalidImport(f"the document is nested deeper than {MAX_DEPTH} levels")


def _parse_root(root: Node, known: KnownSaes, notes: tuple[str, ...]) -> ParsedDocument:
    items = unwrap_envelope(root)
    if len(items) > MAX_ENTRIES:
        raise InvalidImport(f"a document has at most {MAX_ENTRIES} entries")
    formats = [next((one for one in DOCUMENT_FORMATS if one.matches(item)), None) for item in items]
    name = next((format.name for format in formats if format), None)
    if name is None:
        raise InvalidImport(f"the document is none of those that are known: {_SUPPORTED_DOCUMENTS}")
    if len(items) == 1 and formats[0]:
        entries = formats[0].read_entries(items[0], known)
    else:
        entries = [
            entry
            for item, format in zip(items, formats, strict=True)
            for entry in _entries_or_error(item, format, known)
        ]
    return attach_notes(root, name, entries, notes)


def unwrap_envelope(node: Node) -> list[Node]:
    """The entries inside the response envelopes of other servers."""
    if isinstance(node.value, list):
        return [entry for item in node for entry in unwrap_envelope(item)]
    if "data" in node and ("success" in node or "pagination" in node):
        return unwrap_envelope(node / "data")
    if "result" in node and ("task_id" in node or "comparison_id" in node):
        return unwrap_envelope(node / "result")
    return [node]


def _entries_or_error(item: Node, format: DocumentFormat | None, known: KnownSaes) -> list[DocumentEntry]:
    """The entries of one list item; an unreadable item becomes a `nothing` entry with the error as its note."""
    try:
        if format is None:
            raise item.import_error("is nothing that is known")
        return format.read_entries(item, known)
    except InvalidImport as error:
        item.read_all()
        return [DocumentEntry(item.location, "nothing", item.location, notes=(error.message,))]


def attach_notes(root: Node, format: str, entries: Sequence[DocumentEntry], notes: tuple[str, ...]) -> ParsedDocument:
    """Assign each note, and each unread part, to the entry whose path contains it."""
    located = [(format_path(path), text) for path, text in root.tracker.notes]
    noted = {path for path, _ in located}
    located += [(path, "left out") for path in map(format_path, unread_paths(root)) if path not in noted]
    by_entry: dict[str | None, list[str]] = {}
    for path, text in _collapse_notes(dict.fromkeys(located)):
        by_entry.setdefault(_owning_entry_path(path, entries), []).append(f"{path}: {text}")
    annotated = tuple(replace(one, notes=(*one.notes, *by_entry.get(one.path, ()))) for one in entries)
    return ParsedDocument(format, annotated, (*notes, *by_entry.get(None, ())))


def _collapse_notes(notes: dict[tuple[str, str], None]) -> list[tuple[str, str]]:
    """Replace more than `_MAX_NOTES` equal notes by one whose path has `*` for the numbers."""
    kinds: dict[tuple[str, str], list[tuple[str, str]]] = {}
    for path, text in notes:
        kinds.setdefault((re.sub(r"\d+", "*", path), text), []).append((path, text))
    collapsed = []
    for (pattern, text), same in kinds.items():
        collapsed += same if len(same) <= _MAX_NOTES else [(pattern, f"{text} ({len(same)} times)")]
    return collapsed


def _owning_entry_path(location: str, entries: Sequence[DocumentEntry]) -> str | None:
    if len(entries) == 1:
        return entries[0].path
    containing = [
        one.path for one in entries if location == one.path or location.startswith((f"{one.path}.", f"{one.path}["))
    ]
    return max(containing, key=len, default=None)
