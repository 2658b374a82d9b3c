"""What an import answers: entries as they would be, or as they have become.

What `/api/monitor` and `/api/requests` answer: plain values.

A profile as `/api/profiles` tells it: beside what it says, whether it is active and whether it could be.
"""

from typing import Any, Literal

import msgspec

from millm.events import RequestRecord
from millm.monitoring.history import TrackedToken
from millm.monitoring.statistics import FeatureStatistics
from millm.monitoring.watch import SaeWatch
from millm.profiles import store
from millm.profiles.formats.document import DocumentEntry, EntryKind, ParsedDocument
from millm.profiles.resolve import incompatibility
from millm.profiles.store import ProfileDetail, ProfileEntry, StoredProfile
from millm.state import State

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


class WatchState(SaeWatch, frozen=True, kw_only=True):
    """What is read of one SAE, and whether it can be."""

    active: bool
    """False: that SAE is not attached."""


class MonitorState(msgspec.Struct, frozen=True, kw_only=True):
    """What is watched in every request that begins now."""

    on: bool
    watch: tuple[WatchState, ...]
    follow_profile: bool
    """Also what the active profile would have watched."""
    history: int
    """Requests that are remembered."""
    history_size: int
    history_bytes: int
    """Of memory that they take."""


class Statistics(msgspec.Struct, frozen=True, kw_only=True):
    """Of the requests that are meant, per feature that was watched by name."""

    edges: tuple[float, ...]
    """Of each `histogram`."""
    requests: int
    features: tuple[FeatureStatistics, ...]


class RequestDetail(msgspec.Struct, frozen=True, kw_only=True):
    """A request that has ended, with the activations that were watched in it.

    Texts are null where the setting `MILLM_HISTORY_TEXTS` does not keep them, or there was no room.
    """

    request: RequestRecord
    activations: tuple[TrackedToken, ...]
    prompts: tuple[str, ...] | None
    """As the model read them, with the chat template and its special tokens."""
    answers: tuple[str, ...] | None
    body: str | None
    """The request's JSON, as it came."""


class DeletedRequests(msgspec.Struct, frozen=True, kw_only=True):
    """What the history holds no more."""

    requests: int


def profile_entry(state: State, stored: StoredProfile) -> ProfileEntry:
    return store.profile_entry(
        stored,
        is_active=state.active is not None and state.active.profile == stored.profile.name,
        incompatibility=incompatibility(state.model, state.saes, stored.profile),
        model=state.model.name if state.model else None,
    )


def profile_detail(state: State, stored: StoredProfile) -> ProfileDetail:
    whole = stored.profile.model_dump(mode="json", exclude_none=True)
    return ProfileDetail(profile=whole, entry=profile_entry(state, stored))
