"""`millm bench`: measure a running server, ours or any other with OpenAI's API, as its readers see it."""

import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import Annotated

import msgspec
import typer
from rich.console import Console
from rich.table import Table

from millm import __version__
from millm.cli.figures import Spread
from millm.cli.load import Answer, Body, Level, Outcome, answers, level
from millm.cli.options import ApiKey, Url
from millm.cli.output import tell_json
from millm.cli.progress import reporting
from millm.cli.questions import questions
from millm.cli.remote import Remote, connect
from millm.cli.visible import visible
from millm.errors import CannotStart, MillmError

_MOST_READERS = 256
_LONGEST_PROMPT = 100_000


@dataclass(frozen=True)
class Plan:
    """What is asked of the server, and how."""

    model: str
    profile: str | None
    tokens: int
    sizes: tuple[int, ...]
    """Of the prompts, in tokens."""
    concurrency: tuple[int, ...]
    requests: int | None

    def bodies(self, first: int, count: int) -> list[Body]:
        """Requests number `first` and on."""
        return [self._body(question) for question in questions(first, count, self.sizes)]

    def requests_at(self, concurrency: int) -> int:
        return self.requests or max(2 * len(self.sizes), 2 * concurrency)

    def _body(self, question: str) -> Body:
        profile: Body = {"profile": self.profile} if self.profile else {}
        messages = [{"role": "user", "content": question}]
        return {"model": self.model, "messages": messages, "temperature": 0, "max_tokens": self.tokens, **profile}


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What `--json` prints."""

    url: str
    model: str
    profile: str | None
    tokens: int
    """Asked for per answer; one may end sooner."""
    prompts: tuple[int, ...]
    """Lengths asked in turn, roughly, in tokens."""
    millm: str
    levels: tuple[Level, ...]


def run(
    url: Url = None,
    api_key: ApiKey = None,
    model: Annotated[str | None, typer.Option(help="Which of its models (default: the first it lists).")] = None,
    profile: Annotated[str | None, typer.Option(help="Steer with this profile (miLLM's own servers).")] = None,
    tokens: Annotated[int, typer.Option(min=2, help="Longest answer, in tokens.")] = 64,
    concurrency: Annotated[str, typer.Option(help="How many readers at once, one level after another.")] = "1,8,32",
    requests: Annotated[
        int | None, typer.Option(min=1, help="Requests per level (default: two per reader, two per length at least).")
    ] = None,
    prompts: Annotated[str, typer.Option(help="Lengths of the prompts, asked in turn, in tokens.")] = "32,128,512",
    as_json: Annotated[bool, typer.Option("--json", help="The figures as JSON, on stdout.")] = False,
) -> None:
    """Measure a running server: tokens per second, time to the first token and between tokens.

    Example:

        millm bench --concurrency 1,8 --tokens 32

    Chat prompts, the same on every machine; greedy answers, streamed. Any server with OpenAI's API
    will do. Ctrl+C ends it and shows what was measured.
    """
    levels = _numbers("concurrency", concurrency, _MOST_READERS, "1,8,32")
    sizes = _numbers("prompts", prompts, _LONGEST_PROMPT, "32,128,512")
    remote = connect(url, api_key)
    plan = Plan(model or remote.choose(None), profile, tokens, sizes, levels, requests)
    report = _measure(remote, plan, Console(stderr=True))
    if as_json:
        tell_json(report)
    else:
        _show(report)
    if not all(measured.is_whole for measured in report.levels):
        raise typer.Exit(130)


def _numbers(option: str, text: str, most: int, example: str) -> tuple[int, ...]:
    try:
        numbers = tuple(int(part) for part in text.split(","))
    except ValueError:
        numbers = ()
    if not numbers or min(numbers) < 1 or max(numbers) > most:
        raise CannotStart(f"--{option} {text!r}: give numbers from 1 to {most} with commas between, such as {example}")
    return numbers


def _measure(remote: Remote, plan: Plan, console: Console) -> Report:
    levels: list[Level] = []
    with reporting(console) as report:
        first = _warm_up(remote, plan, partial(report, "warming up"))
        for concurrency in plan.concurrency:
            bodies = plan.bodies(first, plan.requests_at(concurrency))
            levels.append(_level(remote, bodies, concurrency, partial(report, f"{concurrency} at once")))
            if not levels[-1].is_whole:
                break
            first += len(bodies)
    return Report(
        url=remote.url, model=plan.model, profile=plan.profile, tokens=plan.tokens, prompts=plan.sizes,
        millm=__version__, levels=tuple(levels),
    )  # fmt: skip


OnProgress = Callable[[int, int], None]
"""(done, total), in requests."""


def _warm_up(remote: Remote, plan: Plan, on_progress: OnProgress) -> int:
    """A prompt of each size; returns the number of the next prompt.

    Raises what the server said when it answers none of them, and CannotStart when it ignores the profile.
    """
    outcomes = _outcomes(remote, plan.bodies(0, len(plan.sizes)), 1, on_progress, [])
    answered = [outcome for outcome in outcomes if isinstance(outcome, Answer)]
    if not answered:
        raise next(outcome for outcome in outcomes if isinstance(outcome, MillmError))
    if plan.profile and not all(answer.receipt and answer.receipt.profile == plan.profile for answer in answered):
        raise CannotStart(f"the server at {remote.url} ignores profile {plan.profile!r}: its answers hold no receipt")
    return len(plan.sizes)


def _level(remote: Remote, bodies: Sequence[Body], concurrency: int, on_progress: OnProgress) -> Level:
    """Whole, or what had ended when Ctrl+C was pressed."""
    outcomes: list[Outcome] = []
    is_whole = True
    started = time.perf_counter()
    try:
        _outcomes(remote, bodies, concurrency, on_progress, outcomes)
    except KeyboardInterrupt:
        is_whole = False
    return level(concurrency, outcomes, time.perf_counter() - started, is_whole=is_whole)


def _outcomes(
    remote: Remote, bodies: Sequence[Body], concurrency: int, on_progress: OnProgress, into: list[Outcome]
) -> list[Outcome]:
    """`into`, as filled when an interrupt ends it."""
    on_progress(0, len(bodies))
    with closing(answers(remote, bodies, concurrency)) as coming:
        for outcome in coming:
            into.append(outcome)
            on_progress(len(into), len(bodies))
    return into


def _show(report: Report) -> None:
    steered = f", profile {report.profile}" if report.profile else ""
    table = Table(
        "at once", "tokens/s", "first token ms (p50 / p95)", "between tokens ms (p50 / p95)", "requests", "errors"
    )
    for column in table.columns:
        column.justify = "right"
    for row in report.levels:
        table.add_row(*_row(row))
    console = Console(highlight=False, emoji=False)
    console.print(visible(f"{report.model} at {report.url}{steered}"), markup=False, soft_wrap=True)
    console.print(table)
    for note in _notes(report.levels):
        console.print(visible(note), markup=False, soft_wrap=True)


def _row(row: Level) -> list[str]:
    speed = "-" if row.tokens_per_second is None else f"{row.tokens_per_second:.1f}"
    waits = [_milliseconds(spread) for spread in (row.first_token_ms, row.inter_token_ms)]
    return [str(row.concurrency), speed, *waits, str(row.requests), str(row.errors)]


def _milliseconds(spread: Spread | None) -> str:
    return "-" if spread is None else f"{spread.p50:,.0f} / {spread.p95:,.0f}"


def _notes(levels: Sequence[Level]) -> list[str]:
    failed = [f"errors at {row.concurrency} at once, the first: {row.first_error}" for row in levels if row.errors]
    guessed = any(row.tokens_counted_by == "pieces" for row in levels)
    counted = ["the server does not count tokens: each piece of text counts as one"] if guessed else []
    stopped = [f"stopped at {row.concurrency} at once: {row.requests} had ended" for row in levels if not row.is_whole]
    return [*failed, *counted, *stopped]
