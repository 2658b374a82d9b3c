"""A sweep as it comes: the events of `/api/sweep` in, a table and the answers out. Knows no connection."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import msgspec
from rich.console import RenderableType
from rich.text import Text

from millm.cli.chunks import Refusal
from millm.cli.columns import table
from millm.cli.quantities import UNKNOWN
from millm.cli.visible import visible
from millm.errors import Unavailable, from_code

_LONGEST_ANSWER = 200
"""Characters of an answer that are shown."""


class Point(msgspec.Struct, frozen=True, kw_only=True):
    """One answer, measured; `scale` is None where a system prompt asked for it instead."""

    scale: float | None
    seed: int
    text: str
    tokens: int
    nll: float | None
    perplexity: float | None
    kl: float | None
    repetition: float
    finish_reason: str


class Means(msgspec.Struct, frozen=True, kw_only=True):
    """Over the seeds."""

    scale: float | None
    answers: int
    tokens: float
    perplexity: float | None
    kl: float | None
    repetition: float


class _Begun(msgspec.Struct, frozen=True):
    total: int


class _Ended(msgspec.Struct, frozen=True):
    summary: tuple[Means, ...]


class _Failed(msgspec.Struct, frozen=True):
    error: Refusal


@dataclass(frozen=True)
class Sweep:
    """What has been measured so far."""

    total: int = 0
    points: tuple[Point, ...] = ()
    summary: tuple[Means, ...] = ()

    def by_scale(self) -> list[list[Point]]:
        scales = dict.fromkeys(point.scale for point in self.points)
        return [[point for point in self.points if point.scale == scale] for scale in scales]


def taken(sweep: Sweep, event: bytes) -> Sweep:
    """With what one event says. Raises what the server said, or Unavailable for what is no part of a sweep."""
    fields = msgspec.json.decode(event, type=dict[str, msgspec.Raw])
    try:
        if "error" in fields:
            failed = msgspec.json.decode(event, type=_Failed).error
            raise from_code(str(failed.code), failed.message)
        if "summary" in fields:
            return replace(sweep, summary=msgspec.json.decode(event, type=_Ended).summary)
        if "total" in fields:
            return replace(sweep, total=msgspec.json.decode(event, type=_Begun).total)
        return replace(sweep, points=(*sweep.points, msgspec.json.decode(event, type=Point)))
    except msgspec.DecodeError as error:
        raise Unavailable(f"the server sent something that is no part of a sweep ({error})") from error


def table_shown(sweep: Sweep) -> RenderableType:
    """At most 80 columns wide."""
    made = table(("STRENGTH", ">PERPLEXITY", ">KL", ">REPEATS", ">TOKENS"), [_row(some) for some in sweep.by_scale()])
    if not sweep.summary:
        made.caption = f"{len(sweep.points)} of {sweep.total} answers"
        made.caption_justify = "left"
    return made


def answers_shown(sweep: Sweep) -> Text:
    """One answer at each multiple: the first seed's."""
    lines = [f"{_strength(some[0].scale)}: {_short(some[0].text)}" for some in sweep.by_scale()]
    return Text(visible("\n" + "\n".join(lines)))


def _row(points: Sequence[Point]) -> tuple[str, ...]:
    nll = _mean([point.nll for point in points])
    kl = _mean([point.kl for point in points])
    return (
        _strength(points[0].scale),
        UNKNOWN if nll is None else f"{math.exp(min(nll, 700.0)):,.1f}",
        UNKNOWN if kl is None else f"{kl:.2f}",
        f"{sum(point.repetition for point in points) / len(points):.0%}",
        f"{sum(point.tokens for point in points) / len(points):.0f}",
    )


def _mean(values: Sequence[float | None]) -> float | None:
    there = [value for value in values if value is not None]
    return sum(there) / len(there) if there else None


def _strength(scale: float | None) -> str:
    if scale is None:
        return "system prompt"
    return f"× {scale:g}" if scale else "base model"


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _LONGEST_ANSWER else f"{line[:_LONGEST_ANSWER]}…"
