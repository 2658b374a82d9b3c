"""Watches of a request: its own `activations` and the monitor's, merged into one watch per SAE for the engine.

Each is filtered out of the merged readings again. The monitor's configuration is one row of the database.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from math import gcd
from typing import Annotated, Literal

import msgspec
from msgspec import Meta
from msgspec.structs import replace

from millm.database import Database
from millm.engine.messages import Reading, SaeFacts
from millm.sae.config import MAX_WATCHED_FEATURES
from millm.sae.steering import Watch

TokenScope = Literal["generated", "prompt", "all"]
WatchTiming = Literal["before", "after", "both"]


@dataclass(frozen=True)
class WatchView:
    """The part of a reading that one of two merged watches requested."""

    watch: Watch
    columns: tuple[int, ...] | None
    """Columns of its features in the reading; None for all of the reading."""
    read_timing: WatchTiming

    def filter_reading(self, reading: Reading, prompt_tokens: int) -> Reading | None:
        """None where the watch does not cover this token."""
        if self.columns is None:
            return reading
        if not covers(self.watch.tokens, reading.position, prompt_tokens):
            return None
        before, after = (self._select_columns(values) for values in (reading.values, reading.after))
        top, top_after = (self._select_top(top, reading.position) for top in (reading.top, reading.top_after))
        if self.read_timing == "both" and self.watch.when == "after":
            before, after, top, top_after = after, (), top_after, ()
        elif self.watch.when != "both":
            after, top_after = (), ()
        return Reading(reading.sae, reading.position, before, top, after, top_after)

    def _select_columns(self, values: tuple[float, ...]) -> tuple[float, ...]:
        assert self.columns is not None
        return tuple(values[column] for column in self.columns) if values else ()

    def _select_top(self, top: tuple[tuple[int, float], ...], position: int) -> tuple[tuple[int, float], ...]:
        return top[: self.watch.top_k] if position % (self.watch.sample_every or 1) == 0 else ()


@dataclass(frozen=True)
class WatchPlan:
    """The watches of one request; empty by default."""

    request_watches: tuple[Watch, ...] = ()
    """The request's own `activations`."""
    recorded_watches: tuple[Watch, ...] = ()
    """For history and events: the monitor's watches, or the request's where the monitor has none."""
    engine_watches: tuple[Watch, ...] = ()
    """Both merged, one per SAE."""
    _request_views: dict[str, WatchView] = field(default_factory=dict)
    _recorded_views: dict[str, WatchView] = field(default_factory=dict)

    @property
    def monitor_only(self) -> tuple[Watch, ...]:
        """The monitor's watches in `recorded_watches`."""
        return () if self.recorded_watches is self.request_watches else self.recorded_watches

    def request_readings(self, readings: Iterable[Reading], prompt_tokens: int) -> Sequence[Reading]:
        return _filter_readings(self._request_views, readings, prompt_tokens)

    def recorded_readings(self, readings: Iterable[Reading], prompt_tokens: int) -> Sequence[Reading]:
        return _filter_readings(self._recorded_views, readings, prompt_tokens)


def merge_watches(request_watches: Sequence[Watch], monitor_watches: Sequence[Watch]) -> WatchPlan:
    """Each argument has at most one watch per SAE."""
    own = {watch.sae: watch for watch in request_watches}
    fitting = tuple(left for watch in monitor_watches if (left := _drop_excess_features(watch, own.get(watch.sae))))
    own_watches = tuple(request_watches)
    recorded = fitting or own_watches
    by_sae: dict[str, Watch] = {}
    for watch in (*request_watches, *fitting):
        by_sae[watch.sae] = _merge_pair(by_sae[watch.sae], watch) if watch.sae in by_sae else watch
    return WatchPlan(
        own_watches, recorded, tuple(by_sae.values()), _views(request_watches, by_sae), _views(recorded, by_sae)
    )


def covers(tokens: TokenScope, position: int, prompt_tokens: int) -> bool:
    return tokens == "all" or (position < prompt_tokens) == (tokens == "prompt")


def _drop_excess_features(watch: Watch, request_watch: Watch | None) -> Watch | None:
    """The monitor's watch without features over the engine's limit; None where nothing is left."""
    requested = request_watch.features if request_watch else ()
    new = [feature for feature in watch.features if feature not in requested]
    over = frozenset(new[max(MAX_WATCHED_FEATURES - len(requested), 0) :])
    fitting = replace(watch, features=tuple(feature for feature in watch.features if feature not in over))
    return fitting if fitting.features or fitting.top_k else None


def _merge_pair(first: Watch, second: Watch) -> Watch:
    tops = [watch for watch in (first, second) if watch.top_k]
    return replace(
        first,
        features=tuple(dict.fromkeys((*first.features, *second.features))),
        top_k=max(first.top_k, second.top_k),
        tokens=first.tokens if first.tokens == second.tokens else "all",
        when=first.when if first.when == second.when else "both",
        sample_every=gcd(*(watch.sample_every or 1 for watch in tops)) if tops else None,
        optional=first.optional and second.optional,
    )


def _views(watches: Iterable[Watch], by_sae: dict[str, Watch]) -> dict[str, WatchView]:
    return {watch.sae: _view(watch, by_sae[watch.sae]) for watch in watches}


def _view(watch: Watch, merged_watch: Watch) -> WatchView:
    is_all = replace(watch, optional=merged_watch.optional) == merged_watch
    columns = None if is_all else tuple(merged_watch.features.index(feature) for feature in watch.features)
    return WatchView(watch, columns, merged_watch.when)


def _filter_readings(views: dict[str, WatchView], readings: Iterable[Reading], prompt_tokens: int) -> list[Reading]:
    filtered = (
        views[reading.sae].filter_reading(reading, prompt_tokens) for reading in readings if reading.sae in views
    )
    return [reading for reading in filtered if reading is not None]


MAX_WATCHED_SAES = 32


class SaeWatch(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Features of one SAE to read in every request."""

    sae: Annotated[str, Meta(min_length=1, max_length=512)]
    features: Annotated[tuple[Annotated[int, Meta(ge=0)], ...], Meta(max_length=64)] = ()
    top_k: Annotated[int, Meta(ge=0, le=100)] = 0
    """Also the most active features of the SAE."""
    tokens: TokenScope = "generated"
    when: WatchTiming = "before"
    """Relative to steering."""
    sample_every: Annotated[int, Meta(ge=1, le=1000)] | None = None
    """Read `top_k` at positions that are a multiple of this; None: chosen by the measured cost."""

    def to_engine_watch(self, facts: SaeFacts) -> Watch:
        """Limited to the features that the attached SAE has."""
        return Watch(
            sae=self.sae,
            features=tuple(feature for feature in dict.fromkeys(self.features) if feature < facts.features),
            top_k=min(self.top_k, facts.features),
            tokens=self.tokens,
            when=self.when,
            sample_every=(self.sample_every or facts.sample_every) if self.top_k else None,
            attachment=facts.id,
            optional=True,
        )


class MonitorConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Applies to new requests."""

    on: bool = False
    watch: Annotated[tuple[SaeWatch, ...], Meta(max_length=MAX_WATCHED_SAES)] = ()
    """At most one per SAE."""
    follow_profile: bool = False
    """Also watch the features of the active profile."""


def read_monitor_config(database: Database) -> MonitorConfig:
    rows = database.read("SELECT body FROM monitor")
    return msgspec.json.decode(rows[0][0], type=MonitorConfig) if rows else MonitorConfig()


def write_monitor_config(database: Database, config: MonitorConfig) -> None:
    """Raises NotStored."""
    body = msgspec.json.encode(config).decode()
    database.write(lambda connection: connection.execute("INSERT OR REPLACE INTO monitor VALUES (1, ?)", (body,)))
