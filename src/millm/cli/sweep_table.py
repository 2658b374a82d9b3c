"""A sweep as it comes: the events of `/api/sweep` in, a table and the answers out. Knows no connection."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import msgspec
from rich.console import RenderableType
from rich.text import Text

from millm.cli.chunks import ServerErrorInfo
from millm.cli.columns import table
from millm.cli.quantities import UNKNOWN
from millm.cli.visible import replace_control_chars
from millm.errors import Unavailable, error_from_code

_MAX_ANSWER_CHARS = 200
"""Characters of an answer that are shown."""


class SweepTablePoint(msgspec.Struct, frozen=True, kw_only=True):
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


class SweepTableMeans(msgspec.Struct, frozen=True, kw_only=True):
    """Over the seeds."""

    scale: float | None
    answers: int
    tokens: float
    perplexity: float | None
    kl: float | None
    repetition: float


class _SweepStartedEvent(msgspec.Struct, frozen=True):
    total: int


class _SweepFinishedEvent(msgspec.Struct, frozen=True):
    summary: tuple[SweepTableMeans, ...]


class _SweepFailedEvent(msgspec.Struct, frozen=True):
    error: ServerErrorInfo


@dataclass(frozen=True)
class PartialSweep:
    """What has been measured so far."""

    total: int = 0
    points: tuple[SweepTablePoint, ...] = ()
    summary: tuple[SweepTableMeans, ...] = ()

    def by_scale(self) -> list[list[SweepTablePoint]]:
        scales = dict.fromkeys(point.scale for point in self.points)
        return [[point for point in self.points if point.scale == scale] for scale in scales]


def apply_event(sweep: PartialSweep, event: bytes) -> PartialSweep:
    """With what one event says. Raises what the server said, or Unavailable for what is no part of a sweep."""
    fields = msgspec.json.decode(event, type=dict[str, msgspec.Raw])
    try:
        if "error" in fields:
            failed = msgspec.json.decode(event, type=_SweepFailedEvent).error
            raise error_from_code(str(failed.code), failed.message)
        if "summary" in fields:
            return replace(sweep, summary=msgspec.json.decode(event, type=_SweepFinishedEvent).summary)
        if "total" in fields:
            return replace(sweep, total=msgspec.json.decode(event, type=_SweepStartedEvent).total)
        return replace(sweep, points=(*sweep.points, msgspec.json.decode(event, type=SweepTablePoint)))
    except msgspec.DecodeError as error:
        raise Unavailable(f"the server sent something that is no part of a sweep ({error})") from error


def sweep_table(sweep: PartialSweep) -> RenderableType:
    """At most 80 columns wide."""
    made = table(
        ("STRENGTH", ">PERPLEXITY", ">KL", ">REPEATS", ">TOKENS"), [_scale_row(some) for some in sweep.by_scale()]
    )
    if not sweep.summary:
        made.caption = f"{len(sweep.points)} of {sweep.total} answers"
        made.caption_justify = "left"
    return made


def answers_text(sweep: PartialSweep) -> Text:
    """One answer at each multiple: the first seed's."""
    lines = [f"{_scale_label(some[0].scale)}: {_truncate(some[0].text)}" for some in sweep.by_scale()]
    return Text(replace_control_chars("\n" + "\n".join(lines)))


def _scale_row(points: Sequence[SweepTablePoint]) -> tuple[str, ...]:
    nll = _mean([point.nll for point in points])
    kl = _mean([point.kl for point in points])
    return (
        _scale_label(points[0].scale),
        UNKNOWN if nll is None else f"{math.exp(min(nll, 700.0)):,.1f}",
        UNKNOWN if kl is None else f"{kl:.2f}",
        f"{sum(point.repetition for point in points) / len(points):.0%}",
        f"{sum(point.tokens for point in points) / len(points):.0f}",
    )


def _mean(values: Sequence[float | None]) -> float | None:
    there = [value for value in values if value is not None]
    return sum(there) / len(there) if there else None


def _scale_label(scale: float | None) -> str:
    if scale is None:
        return "system prompt"
    return f"× {scale:g}" if scale else "base model"


def _truncate(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _MAX_ANSWER_CHARS else f"{line[:_MAX_ANSWER_CHARS]}…"
