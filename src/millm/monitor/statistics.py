"""What the history says of each feature that was watched by name: how often it fired, how strongly, and where."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

import msgspec
import numpy as np
import numpy.typing as npt

from millm.monitor.history import HistoryEntry, RequestFilter
from millm.monitor.track import ActivationTrack

HISTOGRAM_EDGES = tuple(2.0**power for power in range(-6, 13))
"""Of the histogram, in residual units: each bin holds [edge, next edge)."""

FeatureColumn = npt.NDArray[np.float32]


class Largest(msgspec.Struct, frozen=True, kw_only=True):
    """Where an activation was largest."""

    value: float
    request_id: str
    index: int
    position: int


class FeatureStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """One feature over the requests that are meant. It fires where its activation is above 0."""

    sae: str
    feature: int
    tokens: int
    """At which it was read."""
    fired: int
    frequency: float
    mean: float
    """Over all of these tokens."""
    mean_fired: float
    """Over those at which it fired; 0 where there are none."""
    largest: Largest | None
    """None: it never fired."""
    histogram: tuple[int, ...]
    """Of those at which it fired: below the first of `edges`, between each two, from the last on."""


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
        place = int(column.argmax())
        if column[place] > (self.largest.value if self.largest else 0):
            self.largest = Largest(
                value=float(column[place]),
                request_id=request_id,
                index=track.index,
                position=track.positions[place],
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
    """Of `values` as they were watched: before steering, unless only after it was asked for. By SAE and feature."""
    sums: dict[tuple[str, int], _FeatureSums] = defaultdict(_FeatureSums)
    for entry in entries:
        for track in (track for track in entry.tracks if track.features and request_filter.matches_track(track)):
            _add_track(sums, entry.row.id, track, request_filter.feature)
    return [found.to_statistics(sae, feature) for (sae, feature), found in sorted(sums.items())]


def _add_track(
    sums: dict[tuple[str, int], _FeatureSums], request_id: str, track: ActivationTrack, only_feature: int | None
) -> None:
    table = np.frombuffer(track.values, np.float32).reshape(len(track), len(track.features))
    for place, feature in enumerate(track.features):
        if only_feature in (None, feature):
            sums[track.sae, feature].add(request_id, track, table[:, place])
