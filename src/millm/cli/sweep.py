"""A sweep as it comes: the events of `/api/sweep` in, a table and the answers out. Knows no connection.

`millm sweep`: what more and less of a steering does to an answer, multiple by multiple, on a running server.
"""

import math
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Annotated

import msgspec
import typer
from rich.console import RenderableType
from rich.live import Live
from rich.text import Text

from millm.cli.http_client import RemoteServer, ServerErrorInfo, connect
from millm.cli.options import ApiKey, AsJson, Url
from millm.cli.terminal import UNKNOWN, print_json, replace_control_chars, stderr_console, stdout_console, table
from millm.errors import CannotStart, Unavailable, error_from_code

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


class SweepReport(msgspec.Struct, frozen=True, kw_only=True):
    """What `--json` prints."""

    prompt: str
    profile: str | None
    points: tuple[SweepTablePoint, ...]
    summary: tuple[SweepTableMeans, ...]
    """Empty where Ctrl+C ended it."""


def run(
    prompt: Annotated[str, typer.Argument(help="What is asked at every multiple.")],
    profile: Annotated[str | None, typer.Option(help="Whose strengths (default: what is active).")] = None,
    scales: Annotated[str, typer.Option(help="Multiples of the strengths; 0 is the base model.")] = "0,0.5,1,1.5",
    seeds: Annotated[str, typer.Option(help="One answer for each, at most 8.")] = "1,2",
    tokens: Annotated[int, typer.Option(min=1, max=256, help="Longest answer, in tokens.")] = 48,
    system: Annotated[str | None, typer.Option(help="Ask the base model with this system prompt, too.")] = None,
    model: Annotated[str | None, typer.Option(help="Which of its models (default: the one it has).")] = None,
    as_json: AsJson = False,
    url: Url = None,
    api_key: ApiKey = None,
) -> None:
    """Turn all strengths of a steering up step by step, and see what it does to the answer.

    Example:

        millm sweep "Tell me about the sea." --profile yelling --scales 0,0.5,1,1.5

    Perplexity is the base model's, KL how far steering moved it, repetition the share of 3-word
    sequences that were there before. Ctrl+C ends it and shows what was measured.
    """
    body: dict[str, object] = {
        "messages": [{"role": "user", "content": prompt}],
        "scales": _parse_floats("scales", scales, "0,0.5,1"),
        "seeds": _parse_seeds(seeds),
        "max_tokens": tokens,
    }
    named = {"profile": profile, "system_prompt": system, "model": model}
    body |= {name: value for name, value in named.items() if value is not None}
    found = _run_sweep(connect(url, api_key), body, prints_table=not as_json)
    if as_json:
        print_json(SweepReport(prompt=prompt, profile=profile, points=found.points, summary=found.summary))
    else:
        stdout_console().print(answers_text(found), soft_wrap=True)
    if not found.summary:
        raise typer.Exit(130)


def _run_sweep(remote: RemoteServer, body: dict[str, object], *, prints_table: bool) -> PartialSweep:
    """Whole, or what had come when Ctrl+C was pressed."""
    sweep = PartialSweep()
    with Live(
        console=stdout_console() if prints_table else stderr_console(), refresh_per_second=4, transient=not prints_table
    ) as live:
        try:
            with closing(remote.stream_events("/api/sweep", body)) as events:
                for event in events:
                    sweep = apply_event(sweep, event)
                    live.update(sweep_table(sweep))
        except KeyboardInterrupt:
            live.update(sweep_table(sweep))
    return sweep


def _parse_floats(option: str, text: str, example: str) -> list[float]:
    """Raises CannotStart."""
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if not numbers or not all(map(math.isfinite, numbers)):
        raise CannotStart(f"--{option} {text!r}: give numbers with commas between, such as {example}")
    return numbers


def _parse_seeds(text: str) -> list[int]:
    numbers = _parse_floats("seeds", text, "1,2")
    if any(number != int(number) for number in numbers):
        raise CannotStart(f"--seeds {text!r}: give whole numbers with commas between, such as 1,2")
    return [int(number) for number in numbers]
