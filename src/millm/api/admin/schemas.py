"""Response structs of `/api/profiles/import`, `/api/monitor` and `/api/requests`."""

from typing import Any, Literal

import msgspec

from millm.events import RequestRecord
from millm.monitoring.history import TrackedToken
from millm.monitoring.statistics import FeatureStatistics
from millm.monitoring.watch import SaeWatch
from millm.profiles.formats.document import DocumentEntry, EntryKind, ParsedDocument, UnresolvedReference

ImportAction = Literal["added", "replaced", "skipped", "nothing"]


class PreviewEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One profile, set of labels or unusable part of a document."""

    path: str
    """JSON path."""
    becomes: EntryKind
    name: str
    profile: dict[str, Any] | None
    """In the file format."""
    labels: int
    """Number of labels."""
    sae: str | None
    """The SAE of the labels."""
    notes: tuple[str, ...]
    """`path: what is changed or left out`."""
    unresolved: tuple[UnresolvedReference, ...]
    misfit: str | None
    """Why the profile cannot be applied now."""


class ImportPreview(msgspec.Struct, frozen=True, kw_only=True):
    """The entries that an import would add."""

    format: str
    entries: tuple[PreviewEntry, ...]
    notes: tuple[str, ...]
    """Notes that belong to no entry."""


class ImportedEntry(msgspec.Struct, frozen=True, kw_only=True):
    """The result of one entry."""

    path: str
    name: str
    did: ImportAction
    notes: tuple[str, ...]


class ImportResponse(msgspec.Struct, frozen=True, kw_only=True):
    """The results of an import."""

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
        unresolved=entry.unresolved,
        misfit=entry.incompatibility,
    )


class WatchState(SaeWatch, frozen=True, kw_only=True):
    """The watch of one SAE."""

    active: bool
    """False while the SAE is not attached."""


class MonitorState(msgspec.Struct, frozen=True, kw_only=True):
    """The watch configuration of new requests, and the size of the history."""

    on: bool
    watch: tuple[WatchState, ...]
    follow_profile: bool
    """Also watch the features in the active profile's `watch`."""
    history: int
    """Number of requests in the history."""
    history_size: int
    history_bytes: int
    """Memory used by the history."""


class Statistics(msgspec.Struct, frozen=True, kw_only=True):
    """Statistics of the matching requests, per feature watched by name."""

    edges: tuple[float, ...]
    """Bin edges of each `histogram`."""
    requests: int
    features: tuple[FeatureStatistics, ...]


class RequestDetail(msgspec.Struct, frozen=True, kw_only=True):
    """A finished request with its watched activations.

    Texts are null where `MILLM_HISTORY_TEXTS` excludes them, or where the history was full.
    """

    request: RequestRecord
    activations: tuple[TrackedToken, ...]
    prompts: tuple[str, ...] | None
    """With the chat template and its special tokens."""
    answers: tuple[str, ...] | None
    body: str | None
    """The JSON of the request."""


class DeletedRequests(msgspec.Struct, frozen=True, kw_only=True):
    """The number of deleted requests."""

    requests: int
