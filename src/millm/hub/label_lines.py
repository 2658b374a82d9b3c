"""Labels as JSONL, one object a line: ours, Neuronpedia's bulk export and SAEDashboard's, read and written.

Knows no database and no SAE: whether a feature exists is for whoever attaches.
"""

import re
from collections.abc import Iterable
from typing import Annotated, Any

import msgspec
from msgspec import Meta
from msgspec.structs import replace

from millm.errors import InvalidImport

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
