"""The last requests, in memory alone: so many, and no more than so many bytes. The oldest go first."""

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass

from millm.errors import RequestNotFound
from millm.events import RequestRow
from millm.monitor.track import ActivationTrack

REQUEST_OVERHEAD_BYTES = 2048
"""Roughly what a request takes without activations."""


@dataclass(frozen=True, kw_only=True)
class RequestTexts:
    """What was said, as far as the setting `history_texts` keeps it and there was room; None: not kept."""

    prompts: tuple[str, ...] | None = None
    """As the model read them, special tokens and all."""
    answers: tuple[str, ...] | None = None
    body: str | None = None
    """The request's own, in JSON."""


@dataclass(frozen=True)
class HistoryEntry:
    """A request that has ended."""

    row: RequestRow
    tracks: tuple[ActivationTrack, ...]
    size_bytes: int
    texts: RequestTexts = RequestTexts()


@dataclass(frozen=True, kw_only=True)
class RequestFilter:
    """Which requests are meant: those that have all of these; None is any."""

    client: str | None = None
    profile: str | None = None
    task: str | None = None
    """The empty string: those of no task, which are a chat's own."""
    endpoint: str | None = None
    sae: str | None = None
    feature: int | None = None

    def matches(self, entry: HistoryEntry) -> bool:
        row = entry.row
        own = ((self.client, row.client), (self.profile, row.profile or ""), (self.task, row.task or ""))
        if any(wanted is not None and wanted != found for wanted, found in (*own, (self.endpoint, row.endpoint))):
            return False
        return (self.sae is None and self.feature is None) or any(map(self.matches_track, entry.tracks))

    def matches_track(self, track: ActivationTrack) -> bool:
        return self.sae in (None, track.sae) and (self.feature is None or track.has_feature(self.feature))


class History:
    def __init__(self, size: int, max_bytes: int) -> None:
        """`size`: requests; 0: it remembers nothing."""
        self.size, self.max_bytes = size, max_bytes
        self.used_bytes = 0
        """Of what has ended, and of what is being recorded."""
        self._entries: OrderedDict[str, HistoryEntry] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def reserve(self, byte_count: int) -> bool:
        """Room for so many bytes, if need be that of the oldest requests. False: there is none."""
        while self.used_bytes + byte_count > self.max_bytes and self._entries:
            self._remove(next(iter(self._entries)))
        if not self.size or self.used_bytes + byte_count > self.max_bytes:
            return False
        self.used_bytes += byte_count
        return True

    def release(self, byte_count: int) -> None:
        self.used_bytes -= byte_count

    def add(self, entry: HistoryEntry) -> None:
        """Its bytes were taken. One that is named as another is takes its place."""
        if entry.row.id in self._entries:
            self._remove(entry.row.id)
        self._entries[entry.row.id] = entry
        while len(self._entries) > self.size:
            self._remove(next(iter(self._entries)))

    def find(self, id: str) -> HistoryEntry:
        """Raises RequestNotFound."""
        if id not in self._entries:
            raise RequestNotFound(
                f"the history has no request {id[:128]!r}, or not any more: it holds the last {self.size}"
            )
        return self._entries[id]

    def newest(self, request_filter: RequestFilter, before: str | None = None) -> Iterator[HistoryEntry]:
        """Those that ended before request `before`, if that is given; none where it is forgotten, as they are."""
        entries = reversed(tuple(self._entries.values()))
        if before is not None:
            entries = _entries_after(entries, before)
        return filter(request_filter.matches, entries)

    def delete(self, id: str) -> None:
        """Raises RequestNotFound."""
        self.find(id)
        self._remove(id)

    def clear(self) -> int:
        """→ how many there were."""
        known = tuple(self._entries)
        for id in known:
            self._remove(id)
        return len(known)

    def _remove(self, id: str) -> None:
        self.used_bytes -= self._entries.pop(id).size_bytes


def _entries_after(entries: Iterator[HistoryEntry], id: str) -> Iterator[HistoryEntry]:
    for entry in entries:
        if entry.row.id == id:
            break
    return entries
