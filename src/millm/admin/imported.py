"""What an import answers: entries as they would be, or as they have become."""

from typing import Any, Literal

import msgspec

from millm.profiles.importers.values import Becomes, Entry, Preview

Did = Literal["added", "replaced", "skipped", "nothing"]


class ToResolve(msgspec.Struct, frozen=True, kw_only=True):
    """What has to be said, or attached, before an entry can be taken in."""

    path: str
    kind: Literal["sae", "feature", "vector"]
    id: str
    reason: str


class PreviewEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One thing of a document."""

    path: str
    """JSON path."""
    becomes: Becomes
    name: str
    profile: dict[str, Any] | None
    """As the contract writes it."""
    labels: int
    """How many."""
    sae: str | None
    """Whose labels."""
    notes: tuple[str, ...]
    """`path: what is changed or left out`."""
    unresolved: tuple[ToResolve, ...]
    misfit: str | None
    """Why it could not be applied now."""


class ImportPreview(msgspec.Struct, frozen=True, kw_only=True):
    """What a document would become."""

    format: str
    entries: tuple[PreviewEntry, ...]
    notes: tuple[str, ...]
    """Of what belongs to no entry."""


class ImportedEntry(msgspec.Struct, frozen=True, kw_only=True):
    """What one of them has become."""

    path: str
    name: str
    did: Did
    notes: tuple[str, ...]


class Imported(msgspec.Struct, frozen=True, kw_only=True):
    """What a document has become."""

    entries: tuple[ImportedEntry, ...]


def preview_told(found: Preview) -> ImportPreview:
    return ImportPreview(format=found.format, entries=tuple(_told(entry) for entry in found.entries), notes=found.notes)


def entry_told(entry: Entry, did: Did) -> ImportedEntry:
    return ImportedEntry(path=entry.path, name=entry.name, did=did, notes=entry.notes)


def _told(entry: Entry) -> PreviewEntry:
    return PreviewEntry(
        path=entry.path,
        becomes=entry.becomes,
        name=entry.name,
        profile=entry.profile.model_dump(mode="json", exclude_defaults=True) if entry.profile else None,
        labels=len(entry.labels),
        sae=entry.sae,
        notes=entry.notes,
        unresolved=tuple(
            ToResolve(path=one.path, kind=one.kind, id=one.id, reason=one.reason) for one in entry.unresolved
        ),
        misfit=entry.misfit,
    )
