"""What an import answers: entries as they would be, or as they have become."""

from typing import Any, Literal

import msgspec

from millm.profiles.formats.document import DocumentEntry, EntryKind, ParsedDocument

ImportAction = Literal["added", "replaced", "skipped", "nothing"]


class UnresolvedReference(msgspec.Struct, frozen=True, kw_only=True):
    """What has to be said, or attached, before an entry can be taken in."""

    path: str
    kind: Literal["sae", "feature", "vector"]
    id: str
    reason: str


class PreviewEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One thing of a document."""

    path: str
    """JSON path."""
    becomes: EntryKind
    name: str
    profile: dict[str, Any] | None
    """As the contract writes it."""
    labels: int
    """How many."""
    sae: str | None
    """Whose labels."""
    notes: tuple[str, ...]
    """`path: what is changed or left out`."""
    unresolved: tuple[UnresolvedReference, ...]
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
    did: ImportAction
    notes: tuple[str, ...]


class ImportResponse(msgspec.Struct, frozen=True, kw_only=True):
    """What a document has become."""

    entries: tuple[ImportedEntry, ...]


def preview_response(preview: ParsedDocument) -> ImportPreview:
    return ImportPreview(
        format=preview.format, entries=tuple(_preview_entry(entry) for entry in preview.entries), notes=preview.notes
    )


def imported_entry(entry: DocumentEntry, action: ImportAction) -> ImportedEntry:
    return ImportedEntry(path=entry.path, name=entry.name, did=action, notes=entry.notes)


def _preview_entry(entry: DocumentEntry) -> PreviewEntry:
    return PreviewEntry(
        path=entry.path,
        becomes=entry.becomes,
        name=entry.name,
        profile=entry.profile.model_dump(mode="json", exclude_defaults=True) if entry.profile else None,
        labels=len(entry.labels),
        sae=entry.sae,
        notes=entry.notes,
        unresolved=tuple(
            UnresolvedReference(path=one.path, kind=one.kind, id=one.id, reason=one.reason) for one in entry.unresolved
        ),
        misfit=entry.incompatibility,
    )
