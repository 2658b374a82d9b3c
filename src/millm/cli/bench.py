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
from millm.cli.figures import Percentiles
from millm.cli.load import LevelResult, RequestBody, RequestResult, TimedAnswer, run_requests, summarize_level
from millm.cli.options import ApiKey, Url
from millm.cli.output import print_json
from millm.cli.progress import progress_bars
from millm.cli.questions import make_prompts
from millm.cli.remote import RemoteServer, connect
from millm.cli.visible import replace_control_chars
from millm.errors import CannotStart, MillmError

_MAX_CONCURRENCY = 256
_MAX_PROMPT_TOKENS = 100_000


@dataclass(frozen=True)
class BenchPlan:
    """What is asked of the server, and how."""

    model: str
    profile: str | None
    max_tokens: int
    prompt_lengths: tuple[int, ...]
    """Of the prompts, in tokens."""
    concurrency: tuple[int, ...]
    requests: int | None

    def request_bodies(self, first: int, count: int) -> list[RequestBody]:
        """Requests number `first` and on."""
        return [self._request_body(question) for question in make_prompts(first, count, self.prompt_lengths)]

    def requests_at(self, concurrency: int) -> int:
        return self.requests or max(2 * len(self.prompt_lengths), 2 * concurrency)

    def _request_body(self, prompt: str) -> RequestBody:
        profile: RequestBody = {"profile": self.profile} if self.profile else {}
        messages = [{"role": "user", "content": prompt}]
        return {"model": self.model, "messages": messages, "temperature": 0, "max_tokens": self.max_tokens, **profile}


class BenchReport(msgspec.Struct, frozen=True, kw_only=True):
    """What `--json` prints."""

    url: str
    model: str
    profile: str | None
    tokens: int
    """Asked for per answer; one may end sooner."""
    prompts: tuple[int, ...]
    """Lengths asked in turn, roughly, in tokens."""
    millm: str
    levels: tuple[LevelResult, ...]


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
    levels = _parse_positive_ints("concurrency", concurrency, _MAX_CONCURRENCY, "1,8,32")
    sizes = _parse_positive_ints("prompts", prompts, _MAX_PROMPT_TOKENS, "32,128,512")
    remote = connect(url, api_key)
    plan = BenchPlan(model or remote.choose_model(None), profile, tokens, sizes, levels, requests)
    report = _run_levels(remote, plan, Console(stderr=True))
    if as_json:
        print_json(report)
    else:
        _print_report(report)
    if not all(measured.is_whole for measured in report.levels):
        raise typer.Exit(130)


def _parse_positive_ints(option: str, text: str, maximum: int, example: str) -> tuple[int, ...]:
    try:
        numbers = tuple(int(part) for part in text.split(","))
    except ValueError:
        numbers = ()
    if not numbers or min(numbers) < 1 or max(numbers) > maximum:
        raise CannotStart(
            f"--{option} {text!r}: give numbers from 1 to {maximum} with commas between, such as {example}"
        )
    return numbers


def _run_levels(remote: RemoteServer, plan: BenchPlan, console: Console) -> BenchReport:
    levels: list[LevelResult] = []
    with progress_bars(console) as report:
        first = _warm_up(remote, plan, partial(report, "warming up"))
        for concurrency in plan.concurrency:
            bodies = plan.request_bodies(first, plan.requests_at(concurrency))
            levels.append(_run_level(remote, bodies, concurrency, partial(report, f"{concurrency} at once")))
            if not levels[-1].is_whole:
                break
            first += len(bodies)
    return BenchReport(
        url=remote.url, model=plan.model, profile=plan.profile, tokens=plan.max_tokens, prompts=plan.prompt_lengths,
        millm=__version__, levels=tuple(levels),
    )  # fmt: skip


RequestProgress = Callable[[int, int], None]
"""(done, total), in requests."""


def _warm_up(remote: RemoteServer, plan: BenchPlan, on_progress: RequestProgress) -> int:
    """A prompt of each size; returns the number of the next prompt.

    Raises what the server said when it answers none of them, and CannotStart when it ignores the profile.
    """
    outcomes = _collect_results(remote, plan.request_bodies(0, len(plan.prompt_lengths)), 1, on_progress, [])
    answered = [outcome for outcome in outcomes if isinstance(outcome, TimedAnswer)]
    if not answered:
        raise next(outcome for outcome in outcomes if isinstance(outcome, MillmError))
    if plan.profile and not all(answer.receipt and answer.receipt.profile == plan.profile for answer in answered):
        raise CannotStart(f"the server at {remote.url} ignores profile {plan.profile!r}: its answers hold no receipt")
    return len(plan.prompt_lengths)


def _run_level(
    remote: RemoteServer, bodies: Sequence[RequestBody], concurrency: int, on_progress: RequestProgress
) -> LevelResult:
    """Whole, or what had ended when Ctrl+C was pressed."""
    outcomes: list[RequestResult] = []
    is_whole = True
    started = time.perf_counter()
    try:
        _collect_results(remote, bodies, concurrency, on_progress, outcomes)
    except KeyboardInterrupt:
        is_whole = False
    return summarize_level(concurrency, outcomes, time.perf_counter() - started, is_complete=is_whole)


def _collect_results(
    remote: RemoteServer,
    bodies: Sequence[RequestBody],
    concurrency: int,
    on_progress: RequestProgress,
    results: list[RequestResult],
) -> list[RequestResult]:
    """`into`, as filled when an interrupt ends it."""
    on_progress(0, len(bodies))
    with closing(run_requests(remote, bodies, concurrency)) as coming:
        for outcome in coming:
            results.append(outcome)
            on_progress(len(results), len(bodies))
    return results


def _print_report(report: BenchReport) -> None:
    steered = f", profile {report.profile}" if report.profile else ""
    table = Table(
        "at once", "tokens/s", "first token ms (p50 / p95)", "between tokens ms (p50 / p95)", "requests", "errors"
    )
    for column in table.columns:
        column.justify = "right"
    for row in report.levels:
        table.add_row(*_level_row(row))
    console = Console(highlight=False, emoji=False)
    console.print(replace_control_chars(f"{report.model} at {report.url}{steered}"), markup=False, soft_wrap=True)
    console.print(table)
    for note in _report_notes(report.levels):
        console.print(replace_control_chars(note), markup=False, soft_wrap=True)


def _level_row(level: LevelResult) -> list[str]:
    speed = "-" if level.tokens_per_second is None else f"{level.tokens_per_second:.1f}"
    waits = [_format_milliseconds(spread) for spread in (level.first_token_ms, level.inter_token_ms)]
    return [str(level.concurrency), speed, *waits, str(level.requests), str(level.errors)]


def _format_milliseconds(spread: Percentiles | None) -> str:
    return "-" if spread is None else f"{spread.p50:,.0f} / {spread.p95:,.0f}"


def _report_notes(levels: Sequence[LevelResult]) -> list[str]:
    failed = [f"errors at {row.concurrency} at once, the first: {row.first_error}" for row in levels if row.errors]
    guessed = any(row.tokens_counted_by == "pieces" for row in levels)
    counted = ["the server does not count tokens: each piece of text counts as one"] if guessed else []
    stopped = [f"stopped at {row.concurrency} at once: {row.requests} had ended" for row in levels if not row.is_whole]
    return [*failed, *counted, *stopped]
