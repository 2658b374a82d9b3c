"""The history of requests: records, texts and activations, in memory only."""

from array import array
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import msgspec
from msgspec import UNSET, UnsetType

from millm.errors import RequestNotFound
from millm.events import RequestRecord

TopFeatures = tuple[tuple[int, float], ...]
TOKEN_OVERHEAD_BYTES = 64
"""Approximate bytes of a token's text and list entries."""


class TrackedToken(msgspec.Struct, frozen=True, kw_only=True):
    """Activations of one SAE at one token of a request."""

    index: int
    """Number of the choice or input."""
    sae: str
    position: int
    """Position in prompt + completion."""
    generated: bool
    token: str | None
    """None where the setting `history_texts` excludes it."""
    features: tuple[int, ...]
    values: tuple[float, ...]
    """One per feature."""
    top: TopFeatures | UnsetType = UNSET
    after: tuple[float, ...] | UnsetType = UNSET
    """`values` after steering, with `when: both`."""
    top_after: TopFeatures | UnsetType = UNSET


@dataclass
class _TopLists:
    """Top features of each token, most of them empty."""

    features: "array[int]" = field(default_factory=lambda: array("I"))
    values: "array[float]" = field(default_factory=lambda: array("f"))
    ends: "array[int]" = field(default_factory=lambda: array("I"))

    def add(self, top: TopFeatures) -> None:
        self.features.extend(feature for feature, _ in top)
        self.values.extend(value for _, value in top)
        self.ends.append(len(self.features))

    def at(self, token: int) -> TopFeatures:
        span = slice(self.ends[token - 1] if token else 0, self.ends[token])
        return tuple(zip(self.features[span], self.values[span], strict=True))


class ActivationTrack:
    """Activations of one SAE in one choice or input, token by token, in few bytes each (float32)."""

    def __init__(self, index: int, sae: str, features: tuple[int, ...], prompt_tokens: int) -> None:
        self.index, self.sae, self.features = index, sae, features
        self.values = array("f")
        """[tokens, features], row-major."""
        self.after = array("f")
        self.positions = array("I")
        self._prompt_tokens = prompt_tokens
        self._texts: list[str | None] = []
        self._tops, self._tops_after = _TopLists(), _TopLists()

    def __len__(self) -> int:
        return len(self.positions)

    @staticmethod
    def token_bytes(number_count: int) -> int:
        """Approximate bytes of a token with this many numbers."""
        return TOKEN_OVERHEAD_BYTES + 4 * number_count

    def add(
        self,
        position: int,
        text: str | None,
        values: Sequence[float],
        top: TopFeatures,
        after: Sequence[float],
        top_after: TopFeatures,
    ) -> None:
        self.positions.append(position)
        self._texts.append(text)
        self.values.extend(values)
        self.after.extend(after)
        self._tops.add(top)
        self._tops_after.add(top_after)

    def tokens(self) -> Iterator[TrackedToken]:
        width = len(self.features)
        for row, position in enumerate(self.positions):
            columns = slice(row * width, (row + 1) * width)
            yield TrackedToken(
                index=self.index,
                sae=self.sae,
                position=position,
                generated=position >= self._prompt_tokens,
                token=self._texts[row],
                features=self.features,
                values=tuple(self.values[columns]),
                top=self._tops.at(row) or UNSET,
                after=tuple(self.after[columns]) or UNSET,
                top_after=self._tops_after.at(row) or UNSET,
            )

    def has_feature(self, feature: int) -> bool:
        """True for a watched feature, and for one that was among the top features of a token."""
        return feature in self.features or feature in self._tops.features or feature in self._tops_after.features


REQUEST_OVERHEAD_BYTES = 2048
"""Approximate bytes of a request without activations."""


@dataclass(frozen=True, kw_only=True)
class RequestTexts:
    """None where the setting `history_texts` excludes a text, or the history had no room."""

    prompts: tuple[str, ...] | None = None
    """As the model reads them, with special tokens."""
    answers: tuple[str, ...] | None = None
    body: str | None = None
    """JSON of the request."""


@dataclass(frozen=True)
class HistoryEntry:
    record: RequestRecord
    tracks: tuple[ActivationTrack, ...]
    size_bytes: int
    texts: RequestTexts = RequestTexts()


@dataclass(frozen=True, kw_only=True)
class RequestFilter:
    """Selects requests that match all fields; None matches any."""

    client: str | None = None
    profile: str | None = None
    task: str | None = None
    """Empty: requests without a task."""
    endpoint: str | None = None
    sae: str | None = None
    feature: int | None = None

    def matches(self, entry: HistoryEntry) -> bool:
        record = entry.record
        pairs = (
            (self.client, record.client),
            (self.profile, record.profile or ""),
            (self.task, record.task or ""),
            (self.endpoint, record.endpoint),
        )
        if any(expected is not None and expected != actual for expected, actual in pairs):
            return False
        return (self.sae is None and self.feature is None) or any(map(self.matches_track, entry.tracks))

    def matches_track(self, track: ActivationTrack) -> bool:
        return self.sae in (None, track.sae) and (self.feature is None or track.has_feature(self.feature))


class History:
    """The last requests, in memory, bounded by number and by bytes; the oldest are removed first."""

    def __init__(self, size: int, max_bytes: int) -> None:
        """`size`: number of requests; 0 disables the history."""
        self.size, self.max_bytes = size, max_bytes
        self.used_bytes = 0
        """By closed and open requests."""
        self._entries: OrderedDict[str, HistoryEntry] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def reserve(self, byte_count: int) -> bool:
        """Reserve bytes, removing the oldest requests where necessary. False where they do not fit."""
        while self.used_bytes + byte_count > self.max_bytes and self._entries:
            self._remove(next(iter(self._entries)))
        if not self.size or self.used_bytes + byte_count > self.max_bytes:
            return False
        self.used_bytes += byte_count
        return True

    def add(self, entry: HistoryEntry) -> None:
        """Its bytes must be reserved already. An entry with the same id is replaced."""
        if entry.record.id in self._entries:
            self._remove(entry.record.id)
        self._entries[entry.record.id] = entry
        while len(self._entries) > self.size:
            self._remove(next(iter(self._entries)))

    def find(self, id: str) -> HistoryEntry:
        """Raises RequestNotFound."""
        if id not in self._entries:
            raise RequestNotFound(
                f"the history has no request {id[:128]!r}, or no longer: it holds the last {self.size}"
            )
        return self._entries[id]

    def newest(self, request_filter: RequestFilter, before: str | None = None) -> Iterator[HistoryEntry]:
        """Newest first; with `before`, only entries older than that request, none where it is unknown."""
        entries = reversed(tuple(self._entries.values()))
        if before is not None:
            entries = _entries_after(entries, before)
        return filter(request_filter.matches, entries)

    def delete(self, id: str) -> None:
        """Raises RequestNotFound."""
        self.find(id)
        self._remove(id)

    def clear(self) -> int:
        """Returns the number of removed requests."""
        ids = tuple(self._entries)
        for id in ids:
            self._remove(id)
        return len(ids)

    def _remove(self, id: str) -> None:
        self.used_bytes -= self._entries.pop(id).size_bytes


def _entries_after(entries: Iterator[HistoryEntry], id: str) -> Iterator[HistoryEntry]:
    for entry in entries:
        if entry.record.id == id:
            break
    return entries
