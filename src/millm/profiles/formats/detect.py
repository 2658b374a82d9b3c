"""Which family a document is of, by its content, and what all of it becomes."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from millm.errors import InvalidImport
from millm.profiles.formats import document as archive
from millm.profiles.formats import gguf, goodfire, lm_eval, millm, mistudio, neuronpedia
from millm.profiles.formats import millm as peer
from millm.profiles.formats import mistudio as mistudio_labels
from millm.profiles.formats.document import DocumentEntry, KnownSaes, Node, ParsedDocument, format_path, unread_paths

MAX_BYTES = 2**20
"""Of JSON and CSV."""
MAX_DEPTH = 64
MAX_ENTRIES = 1000
_MAX_NOTES = 50
"""Of one kind; more are told as one."""


@dataclass(frozen=True)
class DocumentFormat:
    """How one tool's documents are told from others, and read."""

    name: str
    matches: Callable[[Node], bool]
    read_entries: Callable[[Node, KnownSaes], list[DocumentEntry]]


DOCUMENT_FORMATS = (
    DocumentFormat(lm_eval.FORMAT, lm_eval.matches, lm_eval.read_entries),
    DocumentFormat(mistudio_labels.LABELS_FORMAT, mistudio_labels.matches_labels, mistudio_labels.read_label_entries),
    DocumentFormat(goodfire.FORMAT, goodfire.matches, goodfire.read_entries),
    DocumentFormat(neuronpedia.FORMAT, neuronpedia.matches, neuronpedia.read_entries),
    DocumentFormat(mistudio.FORMAT, mistudio.matches, mistudio.read_entries),
    DocumentFormat(millm.FORMAT, millm.matches, millm.read_entries),
    DocumentFormat(peer.PEER_FORMAT, peer.matches_peer, peer.read_peer_entries),
)
"""The first that matches wins."""
_SUPPORTED_DOCUMENTS = (
    "a profile of miLLM's, a saved experiment or export of miStudio's, JSON or a feature's address of Neuronpedia's,"
    " a steered CSV file of lm-eval's, a variant of Goodfire's, or a GGUF control vector"
)


def parse_document(data: bytes, known: KnownSaes) -> ParsedDocument:
    """All that is in a document. Raises InvalidImport where nothing of it can be read."""
    if data.startswith(b"GGUF"):
        return ParsedDocument(gguf.FORMAT, tuple(gguf.read_gguf_entries(data)))
    if data.startswith(b"PK"):
        files, others = archive.read_archive(data)
        notes = tuple(f"{name[:200]}: left out: an SAE comes with `millm import`" for name in others)
        return _parse_root(Node(files), known, notes)
    if len(data) > MAX_BYTES:
        raise InvalidImport(f"a JSON or CSV document has at most {MAX_BYTES // 2**20} MiB")
    return _parse_root(Node(_parse_text(data)), known, ())


def _parse_text(data: bytes) -> object:
    text = data.lstrip(b"\xef\xbb\xbf \t\r\n")
    if text.startswith((b"{", b"[")):
        found = archive.parse_json(text, "the document")
        _check_depth(found)
        return found
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
    level = [document]
    for _ in range(MAX_DEPTH):
        if not level:
            return
        level = [child for one in level for child in _child_containers(one)]
    raise InvalidImport(f"the document is nested deeper than {MAX_DEPTH} levels")


def _child_containers(value: object) -> Sequence[object]:
    found = list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else []
    return [child for child in found if isinstance(child, dict | list)]


def _parse_root(root: Node, known: KnownSaes, notes: tuple[str, ...]) -> ParsedDocument:
    items = unwrap_envelope(root)
    if len(items) > MAX_ENTRIES:
        raise InvalidImport(f"a document has at most {MAX_ENTRIES} entries")
    families = [_detect_format(item) for item in items]
    if len(items) == 1:
        entries = families[0].read_entries(items[0], known) if families[0] else []
    else:
        entries = [
            entry for item, one in zip(items, families, strict=True) for entry in _entries_or_error(item, one, known)
        ]
    if not any(families):
        raise InvalidImport(f"the document is none of those that are known: {_SUPPORTED_DOCUMENTS}")
    format = next(family.name for family in families if family)
    return attach_notes(root, format, entries, notes)


def unwrap_envelope(node: Node) -> list[Node]:
    """Out of the envelopes that other servers send: the things themselves."""
    if isinstance(node.value, list):
        return [found for item in node for found in unwrap_envelope(item)]
    if "data" in node and ("success" in node or "pagination" in node):
        return unwrap_envelope(node / "data")
    if "result" in node and ("task_id" in node or "comparison_id" in node):
        return unwrap_envelope(node / "result")
    return [node]


def _detect_format(item: Node) -> DocumentFormat | None:
    return next((family for family in DOCUMENT_FORMATS if family.matches(item)), None)


def _entries_or_error(item: Node, format: DocumentFormat | None, known: KnownSaes) -> list[DocumentEntry]:
    """Of a list, what cannot be read is told beside what can."""
    try:
        if format is None:
            raise item.import_error("is nothing that is known")
        return format.read_entries(item, known)
    except InvalidImport as error:
        item.read_all()
        return [DocumentEntry(item.location, "nothing", item.location, notes=(error.message,))]


def attach_notes(root: Node, format: str, entries: Sequence[DocumentEntry], notes: tuple[str, ...]) -> ParsedDocument:
    """Each note goes to the entry in whose part of the document it is."""
    said = [(format_path(path), text) for path, text in root.tracker.notes]
    noted = {place for place, _ in said}
    said += [(place, "left out") for place in map(format_path, unread_paths(root)) if place not in noted]
    owned: dict[str | None, list[str]] = {}
    for place, text in _collapse_notes(dict.fromkeys(said)):
        owned.setdefault(_owning_entry_path(place, entries), []).append(f"{place}: {text}")
    told_of = tuple(replace(one, notes=(*one.notes, *owned.get(one.path, ()))) for one in entries)
    return ParsedDocument(format, told_of, (*notes, *owned.get(None, ())))


def _collapse_notes(notes: dict[tuple[str, str], None]) -> list[tuple[str, str]]:
    """The same of very many places is said once, with a star for their numbers."""
    kinds: dict[tuple[str, str], list[tuple[str, str]]] = {}
    for place, text in notes:
        kinds.setdefault((re.sub(r"\d+", "*", place), text), []).append((place, text))
    found = []
    for (pattern, text), places in kinds.items():
        found += places if len(places) <= _MAX_NOTES else [(pattern, f"{text} ({len(places)} times)")]
    return found


def _owning_entry_path(location: str, entries: Sequence[DocumentEntry]) -> str | None:
    if len(entries) == 1:
        return entries[0].path
    holding = [
        one.path for one in entries if location == one.path or location.startswith((f"{one.path}.", f"{one.path}["))
    ]
    return max(holding, key=len, default=None)
