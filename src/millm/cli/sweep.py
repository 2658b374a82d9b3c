"""`millm sweep`: the effect of a steering on an answer, at several multiples of its strengths, on a running server."""

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
from millm.cli.options import ApiKey, AsJson, Url, given_options, parse_integers, parse_numbers
from millm.cli.terminal import (
    UNKNOWN,
    print_json,
    replace_control_chars,
    stderr_console,
    stdout_console,
    table,
    truncate,
)
from millm.errors import Unavailable
from millm.experiments.schemas import MeasuredAnswer, ScaleMeans, SweepEnd, SweepStart

_MAX_ANSWER_CHARS = 200


@dataclass(frozen=True)
class PartialSweep:
    """The measurements so far."""

    total: int = 0
    points: tuple[MeasuredAnswer, ...] = ()
    summary: tuple[ScaleMeans, ...] = ()
    """Empty until the end."""

    def by_scale(self) -> list[list[MeasuredAnswer]]:
        scales = dict.fromkeys(point.scale for point in self.points)
        return [[point for point in self.points if point.scale == scale] for scale in scales]


def apply_event(sweep: PartialSweep, event: bytes) -> PartialSweep:
    """Add an event of `/api/sweep`. Raises the server's error, or Unavailable for an event of another kind."""
    fields = msgspec.json.decode(event, type=dict[str, msgspec.Raw])
    try:
        if "error" in fields:
            raise msgspec.json.decode(fields["error"], type=ServerErrorInfo).exception()
        if "summary" in fields:
            return replace(sweep, summary=msgspec.json.decode(event, type=SweepEnd).summary)
        if "total" in fields:
            return replace(sweep, total=msgspec.json.decode(event, type=SweepStart).total)
        return replace(sweep, points=(*sweep.points, msgspec.json.decode(event, type=MeasuredAnswer)))
    except msgspec.DecodeError as error:
        raise Unavailable(f"the server sent something that is no part of a sweep ({error})") from error


def sweep_table(sweep: PartialSweep) -> RenderableType:
    """At most 80 columns wide."""
    headings = ("STRENGTH", ">PERPLEXITY", ">KL", ">REPEATS", ">TOKENS")
    drawn = table(headings, map(_scale_row, sweep.by_scale()))
    if not sweep.summary:
        drawn.caption = f"{len(sweep.points)} of {sweep.total} answers"
        drawn.caption_justify = "left"
    return drawn


def answers_text(sweep: PartialSweep) -> Text:
    """One answer for each multiple, of the first seed."""
    lines = []
    for first, *_ in sweep.by_scale():
        lines.append(f"{_scale_label(first.scale)}: {truncate(' '.join(first.text.split()), _MAX_ANSWER_CHARS)}")
    return Text(replace_control_chars("\n" + "\n".join(lines)))


def _scale_row(points: Sequence[MeasuredAnswer]) -> tuple[str, ...]:
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
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _scale_label(scale: float | None) -> str:
    if scale is None:
        return "system prompt"
    return f"× {scale:g}" if scale else "base model"


def run(
    prompt: Annotated[str, typer.Argument(help="The prompt at every multiple.")],
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
    body = {
        "messages": [{"role": "user", "content": prompt}],
        "scales": parse_numbers("scales", scales, "0,0.5,1"),
        "seeds": parse_integers("seeds", seeds, "1,2"),
        "max_tokens": tokens,
        **given_options(profile=profile, system_prompt=system, model=model),
    }
    sweep = _run_sweep(connect(url, api_key), body, prints_table=not as_json)
    if as_json:
        points = [msgspec.to_builtins(point) for point in sweep.points]
        points = [{name: value for name, value in point.items() if name != "done"} for point in points]
        print_json({"prompt": prompt, "profile": profile, "points": points, "summary": sweep.summary})
    else:
        stdout_console().print(answers_text(sweep), soft_wrap=True)
    if not sweep.summary:
        raise typer.Exit(130)


def _run_sweep(remote: RemoteServer, body: dict[str, object], *, prints_table: bool) -> PartialSweep:
    """All points, or those so far at Ctrl+C."""
    sweep = PartialSweep()
    console = stdout_console() if prints_table else stderr_console()
    with Live(console=console, refresh_per_second=4, transient=not prints_table) as live:
        try:
            with closing(remote.stream_events("/api/sweep", body)) as events:
                for event in events:
                    sweep = apply_event(sweep, event)
                    live.update(sweep_table(sweep))
        except KeyboardInterrupt:
            live.update(sweep_table(sweep))
    return sweep
