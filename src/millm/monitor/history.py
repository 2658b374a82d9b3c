"""The last requests, in memory alone: so many, and no more than so many bytes. The oldest go first."""

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass

from millm.errors import RequestNotFound
from millm.monitor.rows import RequestRow
from millm.monitor.track import Track

ROW_BYTES = 2048
"""Roughly what a request takes without activations."""


@dataclass(frozen=True, kw_only=True)
class Texts:
    """What was said, as far as the setting `history_texts` keeps it and there was room; None: not kept."""

    prompts: tuple[str, ...] | None = None
    """As the model read them, special tokens and all."""
    answers: tuple[str, ...] | None = None
    body: str | None = None
    """The request's own, in JSON."""


@dataclass(frozen=True)
class Entry:
    """A request that has ended."""

    row: RequestRow
    tracks: tuple[Track, ...]
    bytes: int
    texts: Texts = Texts()


@dataclass(frozen=True, kw_only=True)
class Filter:
    """Which requests are meant: those that have all of these; None is any."""

    client: str | None = None
    profile: str | None = None
    task: str | None = None
    """The empty string: those of no task, which are a chat's own."""
    endpoint: str | None = None
    sae: str | None = None
    feature: int | None = None

    def takes(self, entry: Entry) -> bool:
        row = entry.row
        own = ((self.client, row.client), (self.profile, row.profile or ""), (self.task, row.task or ""))
        if any(wanted is not None and wanted != found for wanted, found in (*own, (self.endpoint, row.endpoint))):
            return False
        return (self.sae is None and self.feature is None) or any(map(self.means, entry.tracks))

    def means(self, track: Track) -> bool:
        return self.sae in (None, track.sae) and (self.feature is None or track.saw(self.feature))


class History:
    def __init__(self, size: int, most_bytes: int) -> None:
        """`size`: requests; 0: it remembers nothing."""
        self.size, self.most_bytes = size, most_bytes
        self.bytes = 0
        """Of what has ended, and of what is being recorded."""
        self._entries: OrderedDict[str, Entry] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def take(self, more: int) -> bool:
        """Room for so many bytes, if need be that of the oldest requests. False: there is none."""
        while self.bytes + more > self.most_bytes and self._entries:
            self._forget(next(iter(self._entries)))
        if not self.size or self.bytes + more > self.most_bytes:
            return False
        self.bytes += more
        return True

    def give_back(self, taken: int) -> None:
        self.bytes -= taken

    def add(self, entry: Entry) -> None:
        """Its bytes were taken. One that is named as another is takes its place."""
        if entry.row.id in self._entries:
            self._forget(entry.row.id)
        self._entries[entry.row.id] = entry
        while len(self._entries) > self.size:
            self._forget(next(iter(self._entries)))

    def find(self, id: str) -> Entry:
        """Raises RequestNotFound."""
        if id not in self._entries:
            raise RequestNotFound(
                f"the history has no request {id[:128]!r}, or not any more: it holds the last {self.size}"
            )
        return self._entries[id]

    def newest(self, which: Filter, before: str | None = None) -> Iterator[Entry]:
        """Those that ended before request `before`, if that is given; none where it is forgotten, as they are."""
        entries = reversed(tuple(self._entries.values()))
        if before is not None:
            entries = _behind(entries, before)
        return filter(which.takes, entries)

    def forget(self, id: str) -> None:
        """Raises RequestNotFound."""
        self.find(id)
        self._forget(id)

    def clear(self) -> int:
        """→ how many there were."""
        known = tuple(self._entries)
        for id in known:
            self._forget(id)
        return len(known)

    def _forget(self, id: str) -> None:
        self.bytes -= self._entries.pop(id).bytes


def _behind(entries: Iterator[Entry], id: str) -> Iterator[Entry]:
    for entry in entries:
        if entry.row.id == id:
            break
    return entries
