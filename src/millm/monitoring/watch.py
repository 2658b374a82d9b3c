"""What is watched in one request: its own `activations` and the monitor's, as one watch per SAE for the engine.

Both are filtered out of every reading again, so that each sees exactly what it asked for.

What the operator has the server watch in every request: plain values, and their one row in the database.
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
    """One's own part of a reading that was made for two."""

    watch: Watch
    columns: tuple[int, ...] | None
    """Where its features are among those that were read; None: it is all of it."""
    read_timing: WatchTiming

    def filter_reading(self, reading: Reading, prompt_tokens: int) -> Reading | None:
        """`prompt`: tokens of it. None: nothing was asked at this token."""
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
    """Of one request. Nothing, by default: then the engine watches nothing."""

    request_watches: tuple[Watch, ...] = ()
    """By the request itself."""
    recorded_watches: tuple[Watch, ...] = ()
    """For the history and the events: by the monitor, or where it watches nothing by the request."""
    engine_watches: tuple[Watch, ...] = ()
    """Both, one for each SAE."""
    _request_views: dict[str, WatchView] = field(default_factory=dict)
    _recorded_views: dict[str, WatchView] = field(default_factory=dict)

    @property
    def monitor_only(self) -> tuple[Watch, ...]:
        """Of `kept`, what the request did not bring."""
        return () if self.recorded_watches is self.request_watches else self.recorded_watches

    def request_readings(self, readings: Iterable[Reading], prompt_tokens: int) -> Sequence[Reading]:
        return _filter_readings(self._request_views, readings, prompt_tokens)

    def recorded_readings(self, readings: Iterable[Reading], prompt_tokens: int) -> Sequence[Reading]:
        return _filter_readings(self._recorded_views, readings, prompt_tokens)


def merge_watches(request_watches: Sequence[Watch], monitor_watches: Sequence[Watch]) -> WatchPlan:
    """At most one of each SAE in either."""
    own = {watch.sae: watch for watch in request_watches}
    fitting = tuple(left for watch in monitor_watches if (left := _drop_excess_features(watch, own.get(watch.sae))))
    own_watches = tuple(request_watches)
    kept = fitting or own_watches
    by_sae: dict[str, Watch] = {}
    for watch in (*request_watches, *fitting):
        by_sae[watch.sae] = _merge_pair(by_sae[watch.sae], watch) if watch.sae in by_sae else watch
    return WatchPlan(own_watches, kept, tuple(by_sae.values()), _views(request_watches, by_sae), _views(kept, by_sae))


def covers(tokens: TokenScope, position: int, prompt_tokens: int) -> bool:
    """Is the token at `position` one of those? `prompt`: tokens of the prompt."""
    return tokens == "all" or (position < prompt_tokens) == (tokens == "prompt")


def _drop_excess_features(watch: Watch, request_watch: Watch | None) -> Watch | None:
    """What of the monitor's the engine can take beside a request's own."""
    known = request_watch.features if request_watch else ()
    new = [feature for feature in watch.features if feature not in known]
    over = frozenset(new[max(MAX_WATCHED_FEATURES - len(known), 0) :])
    kept = replace(watch, features=tuple(feature for feature in watch.features if feature not in over))
    return kept if kept.features or kept.top_k else None


def _merge_pair(one: Watch, other: Watch) -> Watch:
    tops = [watch for watch in (one, other) if watch.top_k]
    return replace(
        one,
        features=tuple(dict.fromkeys((*one.features, *other.features))),
        top_k=max(one.top_k, other.top_k),
        tokens=one.tokens if one.tokens == other.tokens else "all",
        when=one.when if one.when == other.when else "both",
        sample_every=gcd(*(watch.sample_every or 1 for watch in tops)) if tops else None,
        optional=one.optional and other.optional,
    )


def _views(watches: Iterable[Watch], by_sae: dict[str, Watch]) -> dict[str, WatchView]:
    return {watch.sae: _view(watch, by_sae[watch.sae]) for watch in watches}


def _view(watch: Watch, merged_watch: Watch) -> WatchView:
    is_all = replace(watch, optional=merged_watch.optional) == merged_watch
    columns = None if is_all else tuple(merged_watch.features.index(feature) for feature in watch.features)
    return WatchView(watch, columns, merged_watch.when)


def _filter_readings(views: dict[str, WatchView], readings: Iterable[Reading], prompt_tokens: int) -> list[Reading]:
    found = (views[reading.sae].filter_reading(reading, prompt_tokens) for reading in readings if reading.sae in views)
    return [reading for reading in found if reading is not None]


MAX_WATCHED_SAES = 32


class SaeWatch(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What to read of one SAE."""

    sae: Annotated[str, Meta(min_length=1, max_length=512)]
    features: Annotated[tuple[Annotated[int, Meta(ge=0)], ...], Meta(max_length=64)] = ()
    top_k: Annotated[int, Meta(ge=0, le=100)] = 0
    """Also the most active features of the whole dictionary."""
    tokens: TokenScope = "generated"
    when: WatchTiming = "before"
    """Relative to steering."""
    sample_every: Annotated[int, Meta(ge=1, le=1000)] | None = None
    """Read `top_k` at positions that are a multiple of this; None: as often as costs little."""

    def to_engine_watch(self, facts: SaeFacts) -> Watch:
        """For the engine: what of it the attached SAE has."""
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
    """Of every request that begins from now on."""

    on: bool = False
    watch: Annotated[tuple[SaeWatch, ...], Meta(max_length=MAX_WATCHED_SAES)] = ()
    """One of each SAE."""
    follow_profile: bool = False
    """Also what the active profile would have watched."""


def read_monitor_config(database: Database) -> MonitorConfig:
    rows = database.read("SELECT body FROM monitor")
    return msgspec.json.decode(rows[0][0], type=MonitorConfig) if rows else MonitorConfig()


def write_monitor_config(database: Database, config: MonitorConfig) -> None:
    """When this returns, it holds. Raises NotStored."""
    body = msgspec.json.encode(config).decode()
    database.write(lambda connection: connection.execute("INSERT OR REPLACE INTO monitor VALUES (1, ?)", (body,)))
