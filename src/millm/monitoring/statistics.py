"""Exports of the history (JSON lines per token, CSV rows per token and feature), and statistics of watched features."""

import csv
import io
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import msgspec
import numpy as np
import numpy.typing as npt

from millm.monitoring.history import ActivationTrack, HistoryEntry, RequestFilter, TrackedToken

EXPORT_SCHEMA = "millm.activations/1"
_RECORD_FIELDS = ("began", "endpoint", "model", "profile", "client", "task", "steering")
CSV_COLUMNS = (
    "schema", "request_id", *_RECORD_FIELDS,
    "index", "position", "generated", "token", "sae", "feature", "value", "after", "from",
)  # fmt: skip
_CHUNK_BYTES = 2**16
_FORMULA_PREFIXES = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")
"""Prefixes of spreadsheet formulas (owasp.org/www-community/attacks/CSV_Injection)."""


def export_jsonl(entries: Iterable[HistoryEntry], request_filter: RequestFilter) -> Iterator[bytes]:
    return _join_chunks(
        msgspec.json.encode(_request_columns(entry) | {"seen": seen}) + b"\n"
        for entry, seen in _entry_tokens(entries, request_filter)
    )


def export_csv(entries: Iterable[HistoryEntry], request_filter: RequestFilter) -> Iterator[bytes]:
    return _join_chunks(map(_csv_line, _csv_rows(entries, request_filter)))


def _entry_tokens(
    entries: Iterable[HistoryEntry], request_filter: RequestFilter
) -> Iterator[tuple[HistoryEntry, TrackedToken]]:
    return (
        (entry, seen)
        for entry in entries
        for track in filter(request_filter.matches_track, entry.tracks)
        for seen in track.tokens()
    )


def _request_columns(entry: HistoryEntry) -> dict[str, object]:
    """The first columns of both files."""
    record = entry.record
    return {"schema": EXPORT_SCHEMA, "request_id": record.id} | {name: getattr(record, name) for name in _RECORD_FIELDS}


def _csv_rows(entries: Iterable[HistoryEntry], request_filter: RequestFilter) -> Iterator[list[object]]:
    yield list(CSV_COLUMNS)
    for entry, seen in _entry_tokens(entries, request_filter):
        leading = [
            *map(_escape_formula, _request_columns(entry).values()),
            seen.index,
            seen.position,
            seen.generated,
            _escape_formula(seen.token),
        ]
        for feature, value, after, source in _feature_values(seen):
            if request_filter.feature in (None, feature):
                yield [*leading, _escape_formula(seen.sae), feature, value, after, source]


def _feature_values(token: TrackedToken) -> Iterator[tuple[int, float | None, float | None, str]]:
    after = token.after or (None,) * len(token.features)
    for feature, value, later in zip(token.features, token.values, after, strict=True):
        yield feature, value, later, "watched"
    tops = dict(token.top or ()), dict(token.top_after or ())
    for feature in tops[0] | tops[1]:
        yield feature, tops[0].get(feature), tops[1].get(feature), "top"


def _escape_formula(value: object) -> object:
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA_PREFIXES) else value


def _csv_line(values: list[object]) -> bytes:
    text = io.StringIO()
    csv.writer(text).writerow(values)
    return text.getvalue().encode()


def _join_chunks(parts: Iterable[bytes]) -> Iterator[bytes]:
    chunk = bytearray()
    for part in parts:
        chunk += part
        if len(chunk) >= _CHUNK_BYTES:
            yield bytes(chunk)
            chunk.clear()
    yield bytes(chunk)


HISTOGRAM_EDGES = tuple(2.0**power for power in range(-6, 13))
"""Histogram edges in residual units; a bin is [edge, next edge)."""
FeatureColumn = npt.NDArray[np.float32]


class Largest(msgspec.Struct, frozen=True, kw_only=True):
    """The largest activation of a feature, and its token."""

    value: float
    request_id: str
    index: int
    position: int


class FeatureStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """One feature over the selected requests. A feature fires where its activation is above 0."""

    sae: str
    feature: int
    tokens: int
    """Tokens with a reading."""
    fired: int
    frequency: float
    mean: float
    """Mean over all tokens."""
    mean_fired: float
    """Mean over the tokens at which the feature fired; 0 without any."""
    largest: Largest | None
    """None for a feature that never fired."""
    histogram: tuple[int, ...]
    """Tokens at which the feature fired: below the first of `edges`, between each two, from the last up."""


@dataclass
class _FeatureSums:
    tokens: int = 0
    fired: int = 0
    total: float = 0.0
    fired_total: float = 0.0
    largest: Largest | None = None
    histogram: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(len(HISTOGRAM_EDGES) + 1, np.int64))

    def add(self, request_id: str, track: ActivationTrack, column: FeatureColumn) -> None:
        fired = column[column > 0]
        self.tokens += len(column)
        self.fired += len(fired)
        self.total += float(column.sum(dtype=np.float64))
        self.fired_total += float(fired.sum(dtype=np.float64))
        self.histogram += np.bincount(
            np.searchsorted(HISTOGRAM_EDGES, fired, side="right"), minlength=len(HISTOGRAM_EDGES) + 1
        )
        row = int(column.argmax())
        if column[row] > (self.largest.value if self.largest else 0):
            self.largest = Largest(
                value=float(column[row]), request_id=request_id, index=track.index, position=track.positions[row]
            )

    def to_statistics(self, sae: str, feature: int) -> FeatureStatistics:
        return FeatureStatistics(
            sae=sae,
            feature=feature,
            tokens=self.tokens,
            fired=self.fired,
            frequency=self.fired / self.tokens,
            mean=self.total / self.tokens,
            mean_fired=self.fired_total / max(self.fired, 1),
            largest=self.largest,
            histogram=tuple(self.histogram.tolist()),
        )


def feature_statistics(entries: Iterable[HistoryEntry], request_filter: RequestFilter) -> list[FeatureStatistics]:
    """Statistics of `values`: before steering, unless watched with `when: after`. Sorted by SAE and feature."""
    sums: dict[tuple[str, int], _FeatureSums] = defaultdict(_FeatureSums)
    for entry in entries:
        for track in entry.tracks:
            if track.features and request_filter.matches_track(track):
                table = np.frombuffer(track.values, np.float32).reshape(len(track), len(track.features))
                for column, feature in enumerate(track.features):
                    if request_filter.feature in (None, feature):
                        sums[track.sae, feature].add(entry.record.id, track, table[:, column])
    return [total.to_statistics(sae, feature) for (sae, feature), total in sorted(sums.items())]
