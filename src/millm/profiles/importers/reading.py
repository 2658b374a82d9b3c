"""Which family a document is of, by its content, and what all of it becomes."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from millm.errors import InvalidImport
from millm.profiles.importers import (
    archive,
    gguf,
    goodfire,
    lm_eval,
    millm,
    mistudio,
    mistudio_labels,
    neuronpedia,
    peer,
)
from millm.profiles.importers.document import Node, left_out, told
from millm.profiles.importers.values import Entry, Known, Preview

MOST_BYTES = 2**20
"""Of JSON and CSV."""
DEEPEST = 64
MOST_ENTRIES = 1000
_MOST_NOTES = 50
"""Of one kind; more are told as one."""


@dataclass(frozen=True)
class Family:
    """How one tool's documents are told from others, and read."""

    format: str
    recognised: Callable[[Node], bool]
    entries: Callable[[Node, Known], list[Entry]]


FAMILIES = tuple(
    Family(part.FORMAT, part.recognised, part.entries)
    for part in (lm_eval, mistudio_labels, goodfire, neuronpedia, mistudio, millm, peer)
)
_KNOWN = (
    "a profile of miLLM's, a saved experiment or export of miStudio's, JSON or a feature's address of Neuronpedia's,"
    " a steered CSV file of lm-eval's, a variant of Goodfire's, or a GGUF control vector"
)


def preview(data: bytes, known: Known) -> Preview:
    """All that is in a document. Raises InvalidImport where nothing of it can be read."""
    if data.startswith(b"GGUF"):
        return Preview(gguf.FORMAT, tuple(gguf.preview(data)))
    if data.startswith(b"PK"):
        files, others = archive.document(data)
        notes = tuple(f"{name[:200]}: left out: an SAE comes with `millm import`" for name in others)
        return _of(Node(files), known, notes)
    if len(data) > MOST_BYTES:
        raise InvalidImport(f"a JSON or CSV document has at most {MOST_BYTES // 2**20} MiB")
    return _of(Node(_document(data)), known, ())


def _document(data: bytes) -> object:
    text = data.lstrip(b"\xef\xbb\xbf \t\r\n")
    if text.startswith((b"{", b"[")):
        found = archive.parsed(text, "the document")
        _check_depth(found)
        return found
    try:
        plain = text.decode().strip()
    except UnicodeDecodeError as error:
        raise InvalidImport("the document is not UTF-8") from error
    if re.match(r"https?://", plain):
        return {"neuronpedia": plain}
    if "feature_index" in plain.partition("\n")[0]:
        return lm_eval.table(plain)
    raise InvalidImport(f"the document is none of those that are known: {_KNOWN}")


def _check_depth(found: object) -> None:
    level = [found]
    for _ in range(DEEPEST):
        if not level:
            return
        level = [child for one in level for child in _children(one)]
    raise InvalidImport(f"the document is nested deeper than {DEEPEST} levels")


def _children(one: object) -> Sequence[object]:
    found = list(one.values()) if isinstance(one, dict) else one if isinstance(one, list) else []
    return [child for child in found if isinstance(child, dict | list)]


def _of(root: Node, known: Known, notes: tuple[str, ...]) -> Preview:
    items = unwrapped(root)
    if len(items) > MOST_ENTRIES:
        raise InvalidImport(f"a document has at most {MOST_ENTRIES} entries")
    families = [_family(item) for item in items]
    if len(items) == 1:
        entries = families[0].entries(items[0], known) if families[0] else []
    else:
        entries = [entry for item, one in zip(items, families, strict=True) for entry in _tolerant(item, one, known)]
    if not any(families):
        raise InvalidImport(f"the document is none of those that are known: {_KNOWN}")
    format = next(family.format for family in families if family)
    return with_notes(root, format, entries, notes)


def unwrapped(node: Node) -> list[Node]:
    """Out of the envelopes that other servers send: the things themselves."""
    if isinstance(node.value, list):
        return [found for item in node for found in unwrapped(item)]
    if "data" in node and ("success" in node or "pagination" in node):
        return unwrapped(node / "data")
    if "result" in node and ("task_id" in node or "comparison_id" in node):
        return unwrapped(node / "result")
    return [node]


def _family(item: Node) -> Family | None:
    return next((family for family in FAMILIES if family.recognised(item)), None)


def _tolerant(item: Node, family: Family | None, known: Known) -> list[Entry]:
    """Of a list, what cannot be read is told beside what can."""
    try:
        if family is None:
            raise item.refused("is nothing that is known")
        return family.entries(item, known)
    except InvalidImport as error:
        item.all()
        return [Entry(item.place, "nothing", item.place, notes=(error.message,))]


def with_notes(root: Node, format: str, entries: Sequence[Entry], notes: tuple[str, ...]) -> Preview:
    """Each note goes to the entry in whose part of the document it is."""
    said = [(told(path), text) for path, text in root.ledger.notes]
    noted = {place for place, _ in said}
    said += [(place, "left out") for place in map(told, left_out(root)) if place not in noted]
    owned: dict[str | None, list[str]] = {}
    for place, text in _gathered(dict.fromkeys(said)):
        owned.setdefault(_owner(place, entries), []).append(f"{place}: {text}")
    told_of = tuple(replace(one, notes=(*one.notes, *owned.get(one.path, ()))) for one in entries)
    return Preview(format, told_of, (*notes, *owned.get(None, ())))


def _gathered(said: dict[tuple[str, str], None]) -> list[tuple[str, str]]:
    """The same of very many places is said once, with a star for their numbers."""
    kinds: dict[tuple[str, str], list[tuple[str, str]]] = {}
    for place, text in said:
        kinds.setdefault((re.sub(r"\d+", "*", place), text), []).append((place, text))
    found = []
    for (pattern, text), places in kinds.items():
        found += places if len(places) <= _MOST_NOTES else [(pattern, f"{text} ({len(places)} times)")]
    return found


def _owner(place: str, entries: Sequence[Entry]) -> str | None:
    if len(entries) == 1:
        return entries[0].path
    holding = [one.path for one in entries if place == one.path or place.startswith((f"{one.path}.", f"{one.path}["))]
    return max(holding, key=len, default=None)
