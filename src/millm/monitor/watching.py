"""What is watched in one request: its own `activations` and the monitor's, as one watch per SAE for the engine.

Both are filtered out of every reading again, so that each sees exactly what it asked for.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from math import gcd
from typing import Literal

from msgspec.structs import replace

from millm.engine.messages import Reading, Watch
from millm.sae.sizes import MAX_WATCHED_FEATURES

Tokens = Literal["generated", "prompt", "all"]
When = Literal["before", "after", "both"]


@dataclass(frozen=True)
class View:
    """One's own part of a reading that was made for two."""

    own: Watch
    columns: tuple[int, ...] | None
    """Where its features are among those that were read; None: it is all of it."""
    read: When

    def of(self, reading: Reading, prompt: int) -> Reading | None:
        """`prompt`: tokens of it. None: nothing was asked at this token."""
        if self.columns is None:
            return reading
        if not covers(self.own.tokens, reading.position, prompt):
            return None
        before, after = (self._picked(values) for values in (reading.values, reading.after))
        top, top_after = (self._top(top, reading.position) for top in (reading.top, reading.top_after))
        if self.read == "both" and self.own.when == "after":
            before, after, top, top_after = after, (), top_after, ()
        elif self.own.when != "both":
            after, top_after = (), ()
        return Reading(reading.sae, reading.position, before, top, after, top_after)

    def _picked(self, values: tuple[float, ...]) -> tuple[float, ...]:
        assert self.columns is not None
        return tuple(values[column] for column in self.columns) if values else ()

    def _top(self, top: tuple[tuple[int, float], ...], position: int) -> tuple[tuple[int, float], ...]:
        return top[: self.own.top_k] if position % (self.own.sample_every or 1) == 0 else ()


@dataclass(frozen=True)
class Watching:
    """Of one request. Nothing, by default: then the engine watches nothing."""

    asked: tuple[Watch, ...] = ()
    """By the request itself."""
    kept: tuple[Watch, ...] = ()
    """For the history and the events: by the monitor, or where it watches nothing by the request."""
    engine: tuple[Watch, ...] = ()
    """Both, one for each SAE."""
    _asked: dict[str, View] = field(default_factory=dict)
    _kept: dict[str, View] = field(default_factory=dict)

    @property
    def monitored(self) -> tuple[Watch, ...]:
        """Of `kept`, what the request did not bring."""
        return () if self.kept is self.asked else self.kept

    def of_request(self, readings: Iterable[Reading], prompt: int) -> Sequence[Reading]:
        return _seen(self._asked, readings, prompt)

    def of_monitor(self, readings: Iterable[Reading], prompt: int) -> Sequence[Reading]:
        return _seen(self._kept, readings, prompt)


def merged(asked: Sequence[Watch], monitored: Sequence[Watch]) -> Watching:
    """At most one of each SAE in either."""
    own = {watch.sae: watch for watch in asked}
    fitting = tuple(left for watch in monitored if (left := _fitting(watch, own.get(watch.sae))))
    own_watches = tuple(asked)
    kept = fitting or own_watches
    by_sae: dict[str, Watch] = {}
    for watch in (*asked, *fitting):
        by_sae[watch.sae] = _both(by_sae[watch.sae], watch) if watch.sae in by_sae else watch
    return Watching(own_watches, kept, tuple(by_sae.values()), _views(asked, by_sae), _views(kept, by_sae))


def covers(tokens: Tokens, position: int, prompt: int) -> bool:
    """Is the token at `position` one of those? `prompt`: tokens of the prompt."""
    return tokens == "all" or (position < prompt) == (tokens == "prompt")


def _fitting(watch: Watch, beside: Watch | None) -> Watch | None:
    """What of the monitor's the engine can take beside a request's own."""
    known = beside.features if beside else ()
    new = [feature for feature in watch.features if feature not in known]
    over = frozenset(new[max(MAX_WATCHED_FEATURES - len(known), 0) :])
    kept = replace(watch, features=tuple(feature for feature in watch.features if feature not in over))
    return kept if kept.features or kept.top_k else None


def _both(one: Watch, other: Watch) -> Watch:
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


def _views(own: Iterable[Watch], by_sae: dict[str, Watch]) -> dict[str, View]:
    return {watch.sae: _view(watch, by_sae[watch.sae]) for watch in own}


def _view(own: Watch, read: Watch) -> View:
    is_all = replace(own, optional=read.optional) == read
    columns = None if is_all else tuple(read.features.index(feature) for feature in own.features)
    return View(own, columns, read.when)


def _seen(views: dict[str, View], readings: Iterable[Reading], prompt: int) -> list[Reading]:
    found = (views[reading.sae].of(reading, prompt) for reading in readings if reading.sae in views)
    return [reading for reading in found if reading is not None]
