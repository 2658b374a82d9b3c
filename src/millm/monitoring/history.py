"""The last requests, in memory alone: so many, and no more than so many bytes. The oldest go first.

Activations of one SAE in one answer or text, token after token, in a few bytes each.
"""

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
"""Roughly what a token takes besides its numbers: its text, and its place in the lists."""


class TrackedToken(msgspec.Struct, frozen=True, kw_only=True):
    """What was seen at one token of a request."""

    index: int
    """Of the choice, or of the input that is embedded."""
    sae: str
    position: int
    """Of the token in prompt + completion."""
    generated: bool
    token: str | None
    """None where the history keeps no texts of that kind."""
    features: tuple[int, ...]
    values: tuple[float, ...]
    """One per feature."""
    top: TopFeatures | UnsetType = UNSET
    after: tuple[float, ...] | UnsetType = UNSET
    """`values` after steering, where both were watched."""
    top_after: TopFeatures | UnsetType = UNSET


@dataclass
class _TopLists:
    """Lists of (feature, activation), one per token, most of them none."""

    features: "array[int]" = field(default_factory=lambda: array("I"))
    values: "array[float]" = field(default_factory=lambda: array("f"))
    ends: "array[int]" = field(default_factory=lambda: array("I"))

    def add(self, top: TopFeatures) -> None:
        self.features.extend(feature for feature, _ in top)
        self.values.extend(value for _, value in top)
        self.ends.append(len(self.features))

    def at(self, token: int) -> TopFeatures:
        places = slice(self.ends[token - 1] if token else 0, self.ends[token])
        return tuple(zip(self.features[places], self.values[places], strict=True))


class ActivationTrack:
    """Values are float32, as they came."""

    def __init__(self, index: int, sae: str, features: tuple[int, ...], prompt_tokens: int) -> None:
        """`prompt`: tokens of it."""
        self.index, self.sae, self.features = index, sae, features
        self.values = array("f")
        """[tokens × features], row by row."""
        self.after = array("f")
        self.positions = array("I")
        self._prompt_tokens = prompt_tokens
        self._texts: list[str | None] = []
        self._tops, self._tops_after = _TopLists(), _TopLists()

    def __len__(self) -> int:
        """Tokens."""
        return len(self.positions)

    @staticmethod
    def token_bytes(number_count: int) -> int:
        """Bytes, roughly, of a token with so many of them."""
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
        """Was it watched by name, or among the most active somewhere?"""
        return feature in self.features or feature in self._tops.features or feature in self._tops_after.features


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

    record: RequestRecord
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
        if entry.record.id in self._entries:
            self._remove(entry.record.id)
        self._entries[entry.record.id] = entry
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
        if entry.record.id == id:
            break
    return entries
