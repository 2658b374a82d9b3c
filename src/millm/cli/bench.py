"""`millm bench`: measure a running server, ours or any other with OpenAI's API, as its readers see it.

What samples say: percentiles, a bootstrap interval, things measured in turn. Pure; knows no server.

Many answers at once from a running server, each timed as it comes. Knows no terminal.

The prompts that `millm bench` asks: the same on every machine, every one different from its first words on.

The difference keeps a server from answering out of what it remembers of an earlier prompt.
"""

import random
import statistics
import threading
import time
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from queue import Empty, SimpleQueue
from typing import Annotated, TypeVar

import msgspec
import typer
from rich.console import Console
from rich.table import Table

from millm import __version__
from millm.cli.http_client import ChunkReceipt, ChunkUsage, RemoteServer, connect
from millm.cli.options import ApiKey, Url
from millm.cli.terminal import print_json, progress_bars, replace_control_chars
from millm.errors import CannotStart, MillmError, Unavailable

T = TypeVar("T")


class Percentiles(msgspec.Struct, frozen=True):
    """The median of samples, and what 95 % of them do not exceed."""

    p50: float
    p95: float


class RatioEstimate(msgspec.Struct, frozen=True):
    """The median of the blocks' ratios, and its bootstrap 95 % interval."""

    ratio: float
    interval_95: tuple[float, float]
    blocks: int


def percentile(values: Sequence[float], share: float) -> float:
    """`share` 0..1; between two samples linearly, as numpy does by default. Raises ValueError without samples."""
    if not values:
        raise ValueError("there is no percentile of no samples")
    ordered = sorted(values)
    place = share * (len(ordered) - 1)
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (place - below) * (ordered[above] - ordered[below])


def summarize_percentiles(values: Sequence[float], *, scale: float = 1.0) -> Percentiles | None:
    """Of `values` × `scale`, to a hundredth; None without samples."""
    if not values:
        return None
    return Percentiles(round(scale * percentile(values, 0.5), 2), round(scale * percentile(values, 0.95), 2))


def bootstrap_interval(values: Sequence[float], *, draws: int = 2000) -> tuple[float, float]:
    """Bootstrap 95 % interval of the median, by percentiles (Efron & Tibshirani 1993, ch. 13); the same every time.

    Raises ValueError without samples.
    """
    rng = random.Random(0)  # noqa: S311  statistics, not secrets
    medians = [statistics.median(rng.choices(values, k=len(values))) for _ in range(draws)] if values else []
    return percentile(medians, 0.025), percentile(medians, 0.975)


def summarize_ratios(ratios: Sequence[float]) -> RatioEstimate:
    """Of one ratio per block. Raises ValueError without blocks."""
    low, high = bootstrap_interval(ratios)
    return RatioEstimate(round(statistics.median(ratios), 4), (round(low, 4), round(high, 4)), len(ratios))


def run_counterbalanced(runs: Sequence[Callable[[], T]]) -> list[tuple[T, T]]:
    """Each of `runs` twice, in order and then in reverse (A, B, B, A): a drift that is linear in time cancels."""
    there = [run() for run in runs]
    back = [run() for run in reversed(runs)]
    return list(zip(there, reversed(back), strict=True))


RequestBody = dict[str, object]
_MS_PER_SECOND = 1000.0


class TimedAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """One answer, as its reader saw it; times in seconds from when it was asked for."""

    first_text: float
    """Until the first text came; `seconds` if none did."""
    seconds: float
    gaps: tuple[float, ...]
    """Between one piece of text and the next. A server that sends several tokens at once has longer ones."""
    tokens: int
    """As the server counted them; pieces of text, where it does not count."""
    is_counted: bool
    """By the server."""
    prompt_tokens: int | None = None
    receipt: ChunkReceipt | None = None

    @property
    def seconds_per_token(self) -> float:
        """After the first."""
        return (self.seconds - self.first_text) / max(1, self.tokens - 1)


RequestResult = TimedAnswer | MillmError


class LevelResult(msgspec.Struct, frozen=True, kw_only=True):
    """What a number of readers at once got. None: nothing to say it of."""

    concurrency: int
    is_whole: bool
    """Not when it was stopped: it then has no throughput."""
    requests: int
    """That ended, well or not."""
    errors: int
    first_error: str | None
    seconds: float
    prompt_tokens: int | None
    output_tokens: int
    tokens_per_second: float | None
    """Of all readers together."""
    tokens_counted_by: str
    """`server`, or `pieces` of text where it does not count."""
    first_token_ms: Percentiles | None
    inter_token_ms: Percentiles | None


def time_request(remote: RemoteServer, body: RequestBody, stop_event: threading.Event | None = None) -> TimedAnswer:
    """A chat completion, streamed. Raises MillmError, also for an answer without a token and when it is `stopped`."""
    asked = time.perf_counter()
    seconds = 0.0
    times: list[float] = []
    usage: ChunkUsage | None = None
    receipt: ChunkReceipt | None = None
    with closing(remote.stream_chat({**body, "stream_options": {"include_usage": True}})) as chunks:
        for chunk in chunks:
            if stop_event and stop_event.is_set():
                raise Unavailable("it was stopped")
            seconds = time.perf_counter() - asked
            if any(choice.delta.text for choice in chunk.choices):
                times.append(seconds)
            usage, receipt = chunk.usage or usage, chunk.millm or receipt
    tokens = usage.completion_tokens if usage else len(times)
    if not tokens:
        raise Unavailable("the answer holds no token")
    return TimedAnswer(
        first_text=times[0] if times else seconds,
        seconds=seconds,
        gaps=tuple(after - before for before, after in pairwise(times)),
        tokens=tokens,
        is_counted=usage is not None,
        prompt_tokens=usage.prompt_tokens if usage else None,
        receipt=receipt,
    )


def run_requests(remote: RemoteServer, bodies: Iterable[RequestBody], concurrency: int) -> Generator[RequestResult]:
    """Each outcome as it comes, `concurrency` of them under way at a time. Closing it ends those under way.

    The readers are daemon threads, so that a server which says nothing cannot hold up whoever has closed this.
    """
    waiting: SimpleQueue[RequestBody] = SimpleQueue()
    ended: SimpleQueue[RequestResult | None] = SimpleQueue()  # None: a reader has nothing left to do
    stopped = threading.Event()
    for body in bodies:
        waiting.put(body)
    for _ in range(concurrency):
        threading.Thread(target=_run_reader, args=(remote, waiting, ended, stopped), daemon=True).start()
    readers = concurrency
    try:
        while readers:
            outcome = ended.get()
            if outcome is None:
                readers -= 1
            else:
                yield outcome
    finally:
        stopped.set()


def _run_reader(
    remote: RemoteServer,
    pending: SimpleQueue[RequestBody],
    results: SimpleQueue[RequestResult | None],
    stop_event: threading.Event,
) -> None:
    try:
        while not stop_event.is_set():
            results.put(_answer_or_error(remote, pending.get_nowait(), stop_event))
    except Empty:
        return
    finally:
        results.put(None)


def _answer_or_error(remote: RemoteServer, body: RequestBody, stop_event: threading.Event) -> RequestResult:
    try:
        return time_request(remote, body, stop_event)
    except MillmError as error:
        return error


def summarize_level(
    concurrency: int, results: Sequence[RequestResult], seconds: float, *, is_complete: bool = True
) -> LevelResult:
    """`seconds`: from the first request to the last answer."""
    good = [outcome for outcome in results if isinstance(outcome, TimedAnswer)]
    errors = [outcome.message for outcome in results if isinstance(outcome, MillmError)]
    tokens = sum(answer.tokens for answer in good)
    prompts = [answer.prompt_tokens for answer in good if answer.prompt_tokens is not None]
    return LevelResult(
        concurrency=concurrency,
        is_whole=is_complete,
        requests=len(results),
        errors=len(errors),
        first_error=errors[0] if errors else None,
        seconds=round(seconds, 3),
        prompt_tokens=sum(prompts) if prompts else None,
        output_tokens=tokens,
        tokens_per_second=round(tokens / seconds, 2) if good and is_complete else None,
        tokens_counted_by="server" if all(answer.is_counted for answer in good) else "pieces",
        first_token_ms=summarize_percentiles([answer.first_text for answer in good], scale=_MS_PER_SECOND),
        inter_token_ms=summarize_percentiles([gap for answer in good for gap in answer.gaps], scale=_MS_PER_SECOND),
    )


PROMPT_LENGTHS = (32, 128, 512)
"""Tokens of a prompt, more or less: a tokenizer and a chat template each have their own idea of it."""
_SENTENCES = (
    "The harbour lies quiet before the boats come back.",
    "A narrow path leads from the mill to the old bridge.",
    "In the kitchen the bread cools beside the open window.",
    "The train leaves at noon and arrives in the evening.",
    "Two gardeners plant beans along the southern wall.",
    "Every spring the river carries sand to the lower fields.",
    "The library keeps its maps in a room without windows.",
    "Rain is expected after sunset, with wind from the west.",
    "The clock in the square has been slow since March.",
    "Children fly paper kites on the hill behind the school.",
    "A painter mixes blue and white for the winter sky.",
    "The baker opens early and sells the last loaf by ten.",
)
_TOKENS_PER_SENTENCE = 11
_FRAME_TOKENS = 21
"""Of what stands before and after the sentences."""


def make_prompt(number: int, tokens: int) -> str:
    """Prompt number `number` of about `size` tokens."""
    rng = random.Random(number)  # noqa: S311  variety, not secrets
    count = max(1, round((tokens - _FRAME_TOKENS) / _TOKENS_PER_SENTENCE))
    sentences = " ".join(rng.choice(_SENTENCES) for _ in range(count))
    task = "Continue these notes at length, in whole sentences and plain words."
    return f"{number} notes about a small town. {sentences} {task}"


def make_prompts(first: int, count: int, lengths: Sequence[int] = PROMPT_LENGTHS) -> list[str]:
    """`count` prompts from number `first` on, the sizes in turn."""
    return [make_prompt(number, lengths[number % len(lengths)]) for number in range(first, first + count)]


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
