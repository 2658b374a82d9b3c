"""`millm sweep`: what more and less of a steering does to an answer, multiple by multiple, on a running server."""

import math
from contextlib import closing
from typing import Annotated

import msgspec
import typer
from rich.live import Live

from millm.cli.options import ApiKey, AsJson, Url
from millm.cli.output import notes, out, tell_json
from millm.cli.remote import Remote, connect
from millm.cli.sweep_table import Means, Point, Sweep, answers_shown, table_shown, taken
from millm.errors import CannotStart


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What `--json` prints."""

    prompt: str
    profile: str | None
    points: tuple[Point, ...]
    summary: tuple[Means, ...]
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
        "scales": _numbers("scales", scales, "0,0.5,1"),
        "seeds": _seeds(seeds),
        "max_tokens": tokens,
    }
    named = {"profile": profile, "system_prompt": system, "model": model}
    body |= {name: value for name, value in named.items() if value is not None}
    found = _measure(connect(url, api_key), body, is_shown=not as_json)
    if as_json:
        tell_json(Report(prompt=prompt, profile=profile, points=found.points, summary=found.summary))
    else:
        out().print(answers_shown(found), soft_wrap=True)
    if not found.summary:
        raise typer.Exit(130)


def _measure(remote: Remote, body: dict[str, object], *, is_shown: bool) -> Sweep:
    """Whole, or what had come when Ctrl+C was pressed."""
    sweep = Sweep()
    with Live(console=out() if is_shown else notes(), refresh_per_second=4, transient=not is_shown) as live:
        try:
            with closing(remote.events("/api/sweep", body)) as events:
                for event in events:
                    sweep = taken(sweep, event)
                    live.update(table_shown(sweep))
        except KeyboardInterrupt:
            live.update(table_shown(sweep))
    return sweep


def _numbers(option: str, text: str, example: str) -> list[float]:
    """Raises CannotStart."""
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if not numbers or not all(map(math.isfinite, numbers)):
        raise CannotStart(f"--{option} {text!r}: give numbers with commas between, such as {example}")
    return numbers


def _seeds(text: str) -> list[int]:
    numbers = _numbers("seeds", text, "1,2")
    if any(number != int(number) for number in numbers):
        raise CannotStart(f"--seeds {text!r}: give whole numbers with commas between, such as 1,2")
    return [int(number) for number in numbers]
