"""`millm bench`: speed of a running server, miLLM or another with OpenAI's API, as its clients see it."""

import random
import threading
import time
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from queue import Empty, SimpleQueue
from typing import Annotated

import msgspec
import typer
from rich.console import Console
from rich.table import Table

from millm import __version__
from millm.cli.http_client import ChunkReceipt, ChunkUsage, RemoteServer, connect
from millm.cli.options import ApiKey, Url, parse_integers
from millm.cli.terminal import print_json, print_line, progress_bars, stderr_console
from millm.errors import CannotStart, MillmError, Unavailable

RequestBody = dict[str, object]
RequestProgress = Callable[[int, int], None]
"""(done, total), in requests."""
_MS_PER_SECOND = 1000.0
_MAX_CONCURRENCY = 256
_MAX_PROMPT_TOKENS = 100_000


class Percentiles(msgspec.Struct, frozen=True):
    p50: float
    p95: float


class TimedAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """One answer; times in seconds since the request."""

    first_text: float
    """Until the first text; `seconds` if there was none."""
    seconds: float
    gaps: tuple[float, ...]
    """Between consecutive pieces of text; longer where a server sends several tokens at once."""
    tokens: int
    """As the server counted them, else pieces of text."""
    is_counted: bool
    """The server reported `usage`."""
    prompt_tokens: int | None = None
    receipt: ChunkReceipt | None = None

    @property
    def seconds_per_token(self) -> float:
        """After the first token."""
        return (self.seconds - self.first_text) / max(1, self.tokens - 1)


RequestResult = TimedAnswer | MillmError


class LevelResult(msgspec.Struct, frozen=True, kw_only=True):
    """Measurements at one concurrency. None: no data."""

    concurrency: int
    is_whole: bool
    """False after Ctrl+C; then without throughput."""
    requests: int
    """Completed or failed."""
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


class BenchReport(msgspec.Struct, frozen=True, kw_only=True):
    """The JSON output."""

    url: str
    model: str
    profile: str | None
    tokens: int
    """Limit per answer."""
    prompts: tuple[int, ...]
    """Approximate lengths in tokens, used in turn."""
    millm: str
    levels: tuple[LevelResult, ...]


@dataclass(frozen=True)
class BenchPlan:
    """The requests of a run."""

    model: str
    profile: str | None
    max_tokens: int
    prompt_lengths: tuple[int, ...]
    """In tokens."""
    concurrency: tuple[int, ...]
    requests: int | None

    def request_bodies(self, first: int, count: int) -> list[RequestBody]:
        """`count` requests from number `first` on."""
        fields: RequestBody = {"model": self.model, "temperature": 0, "max_tokens": self.max_tokens}
        if self.profile:
            fields["profile"] = self.profile
        prompts = make_prompts(first, count, self.prompt_lengths)
        return [{**fields, "messages": [{"role": "user", "content": prompt}]} for prompt in prompts]

    def requests_at(self, concurrency: int) -> int:
        return self.requests or max(2 * len(self.prompt_lengths), 2 * concurrency)


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
    prompts: Annotated[str, typer.Option(help="Lengths of the prompts in tokens, used in turn.")] = "32,128,512",
    as_json: Annotated[bool, typer.Option("--json", help="The figures as JSON, on stdout.")] = False,
) -> None:
    """Measure a running server: tokens per second, time to the first token and between tokens.

    Example:

        millm bench --concurrency 1,8 --tokens 32

    Chat prompts, the same on every machine; greedy answers, streamed. Any server with OpenAI's API
    will do. Ctrl+C ends it and shows what was measured.
    """
    levels = tuple(parse_integers("concurrency", concurrency, "1,8,32", _MAX_CONCURRENCY))
    lengths = tuple(parse_integers("prompts", prompts, "32,128,512", _MAX_PROMPT_TOKENS))
    remote = connect(url, api_key)
    plan = BenchPlan(model or remote.choose_model(None), profile, tokens, lengths, levels, requests)
    report = _run_levels(remote, plan)
    if as_json:
        print_json(report)
    else:
        _print_report(report)
    if not all(level.is_whole for level in report.levels):
        raise typer.Exit(130)


def _run_levels(remote: RemoteServer, plan: BenchPlan) -> BenchReport:
    levels: list[LevelResult] = []
    with progress_bars(stderr_console()) as report:
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


def _warm_up(remote: RemoteServer, plan: BenchPlan, on_progress: RequestProgress) -> int:
    """Send a prompt of each length; returns the number of the next prompt.

    Raises the server's error if all fail, and CannotStart if the server ignores the profile.
    """
    results: list[RequestResult] = []
    _collect_results(remote, plan.request_bodies(0, len(plan.prompt_lengths)), 1, on_progress, results)
    answers = [result for result in results if isinstance(result, TimedAnswer)]
    if not answers:
        raise next(result for result in results if isinstance(result, MillmError))
    if plan.profile and not all(answer.receipt and answer.receipt.profile == plan.profile for answer in answers):
        raise CannotStart(f"the server at {remote.url} ignores profile {plan.profile!r}: its answers hold no receipt")
    return len(plan.prompt_lengths)


def _run_level(
    remote: RemoteServer, bodies: Sequence[RequestBody], concurrency: int, on_progress: RequestProgress
) -> LevelResult:
    """All requests, or those completed at Ctrl+C."""
    results: list[RequestResult] = []
    is_complete = True
    started = time.perf_counter()
    try:
        _collect_results(remote, bodies, concurrency, on_progress, results)
    except KeyboardInterrupt:
        is_complete = False
    return summarize_level(concurrency, results, time.perf_counter() - started, is_complete=is_complete)


def _collect_results(
    remote: RemoteServer,
    bodies: Sequence[RequestBody],
    concurrency: int,
    on_progress: RequestProgress,
    results: list[RequestResult],
) -> None:
    """Append to `results`, which stays valid when an interrupt ends the call."""
    on_progress(0, len(bodies))
    with closing(run_requests(remote, bodies, concurrency)) as incoming:
        for result in incoming:
            results.append(result)
            on_progress(len(results), len(bodies))


def run_requests(remote: RemoteServer, bodies: Iterable[RequestBody], concurrency: int) -> Generator[RequestResult]:
    """Results in order of completion, `concurrency` requests at a time. Closing the generator stops the others.

    The readers are daemon threads, so that a silent server cannot delay the caller after closing.
    """
    pending: SimpleQueue[RequestBody] = SimpleQueue()
    results: SimpleQueue[RequestResult | None] = SimpleQueue()  # None: a reader has finished
    stop_event = threading.Event()
    for body in bodies:
        pending.put(body)
    for _ in range(concurrency):
        threading.Thread(target=_run_reader, args=(remote, pending, results, stop_event), daemon=True).start()
    readers = concurrency
    try:
        while readers:
            result = results.get()
            if result is None:
                readers -= 1
            else:
                yield result
    finally:
        stop_event.set()


def _run_reader(
    remote: RemoteServer,
    pending: SimpleQueue[RequestBody],
    results: SimpleQueue[RequestResult | None],
    stop_event: threading.Event,
) -> None:
    try:
        while not stop_event.is_set():
            body = pending.get_nowait()
            try:
                results.put(time_request(remote, body, stop_event))
            except MillmError as error:
                results.put(error)
    except Empty:
        return
    finally:
        results.put(None)


def time_request(remote: RemoteServer, body: RequestBody, stop_event: threading.Event | None = None) -> TimedAnswer:
    """Stream a chat completion. Raises MillmError, also for an answer without a token and once `stop_event` is set."""
    started = time.perf_counter()
    seconds = 0.0
    times: list[float] = []
    usage: ChunkUsage | None = None
    receipt: ChunkReceipt | None = None
    with closing(remote.stream_chat({**body, "stream_options": {"include_usage": True}})) as chunks:
        for chunk in chunks:
            if stop_event and stop_event.is_set():
                raise Unavailable("the run was stopped")
            seconds = time.perf_counter() - started
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


def summarize_level(
    concurrency: int, results: Sequence[RequestResult], seconds: float, *, is_complete: bool = True
) -> LevelResult:
    """`seconds`: from the first request to the last answer."""
    answers = [result for result in results if isinstance(result, TimedAnswer)]
    errors = [result.message for result in results if isinstance(result, MillmError)]
    tokens = sum(answer.tokens for answer in answers)
    prompt_tokens = [answer.prompt_tokens for answer in answers if answer.prompt_tokens is not None]
    gaps = [gap for answer in answers for gap in answer.gaps]
    return LevelResult(
        concurrency=concurrency,
        is_whole=is_complete,
        requests=len(results),
        errors=len(errors),
        first_error=errors[0] if errors else None,
        seconds=round(seconds, 3),
        prompt_tokens=sum(prompt_tokens) if prompt_tokens else None,
        output_tokens=tokens,
        tokens_per_second=round(tokens / seconds, 2) if answers and is_complete else None,
        tokens_counted_by="server" if all(answer.is_counted for answer in answers) else "pieces",
        first_token_ms=summarize_percentiles([answer.first_text for answer in answers], scale=_MS_PER_SECOND),
        inter_token_ms=summarize_percentiles(gaps, scale=_MS_PER_SECOND),
    )


def summarize_percentiles(values: Sequence[float], *, scale: float = 1.0) -> Percentiles | None:
    """Median and 95th percentile of `values` × `scale`, rounded to hundredths; None without samples."""
    if not values:
        return None
    return Percentiles(round(scale * percentile(values, 0.5), 2), round(scale * percentile(values, 0.95), 2))


def percentile(values: Sequence[float], share: float) -> float:
    """`share` 0..1; linear between two samples, as numpy's default. Raises ValueError without samples."""
    if not values:
        raise ValueError("there is no percentile of no samples")
    ordered = sorted(values)
    position = share * (len(ordered) - 1)
    below = int(position)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (position - below) * (ordered[above] - ordered[below])


def _print_report(report: BenchReport) -> None:
    table = Table()
    for heading in (
        "at once", "tokens/s", "first token ms (p50 / p95)", "between tokens ms (p50 / p95)", "requests", "errors",
    ):  # fmt: skip
        table.add_column(heading, justify="right")
    for level in report.levels:
        speed = "-" if level.tokens_per_second is None else f"{level.tokens_per_second:.1f}"
        waits = [_format_milliseconds(each) for each in (level.first_token_ms, level.inter_token_ms)]
        table.add_row(str(level.concurrency), speed, *waits, str(level.requests), str(level.errors))
    profile = f", profile {report.profile}" if report.profile else ""
    console = Console(highlight=False, emoji=False)
    print_line(console, f"{report.model} at {report.url}{profile}")
    console.print(table)
    for note in _report_notes(report.levels):
        print_line(console, note)


def _format_milliseconds(percentiles: Percentiles | None) -> str:
    return "-" if percentiles is None else f"{percentiles.p50:,.0f} / {percentiles.p95:,.0f}"


def _report_notes(levels: Sequence[LevelResult]) -> list[str]:
    notes = [f"errors at {row.concurrency} at once, the first: {row.first_error}" for row in levels if row.errors]
    if any(row.tokens_counted_by == "pieces" for row in levels):
        notes.append("the server does not count tokens: each piece of text counts as one")
    return notes + [
        f"stopped at {row.concurrency} at once, after {row.requests} requests" for row in levels if not row.is_whole
    ]


PROMPT_LENGTHS = (32, 128, 512)
"""Approximate tokens of a prompt: tokenizers and chat templates differ."""
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
"""Tokens before and after the sentences."""


def make_prompt(number: int, tokens: int) -> str:
    """Prompt `number`, of about `tokens` tokens, the same on every machine.

    The first words differ between prompts, so that a server cannot reuse a cached prefix.
    """
    rng = random.Random(number)  # noqa: S311  variety, not secrets
    count = max(1, round((tokens - _FRAME_TOKENS) / _TOKENS_PER_SENTENCE))
    sentences = " ".join(rng.choice(_SENTENCES) for _ in range(count))
    task = "Continue these notes at length, in whole sentences and plain words."
    return f"{number} notes about a small town. {sentences} {task}"


def make_prompts(first: int, count: int, lengths: Sequence[int] = PROMPT_LENGTHS) -> list[str]:
    """`count` prompts from number `first` on, with `lengths` in turn."""
    return [make_prompt(number, lengths[number % len(lengths)]) for number in range(first, first + count)]
