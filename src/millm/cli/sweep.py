"""`millm sweep`: what more and less of a steering does to an answer, multiple by multiple, on a running server."""

import math
from contextlib import closing
from typing import Annotated

import msgspec
import typer
from rich.live import Live

from millm.cli.options import ApiKey, AsJson, Url
from millm.cli.output import print_json, stderr_console, stdout_console
from millm.cli.remote import RemoteServer, connect
from millm.cli.sweep_table import PartialSweep, SweepTableMeans, SweepTablePoint, answers_text, apply_event, sweep_table
from millm.errors import CannotStart


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
