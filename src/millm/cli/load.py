"""Many answers at once from a running server, each timed as it comes. Knows no terminal."""

import threading
import time
from collections.abc import Generator, Iterable, Sequence
from contextlib import closing
from itertools import pairwise
from queue import Empty, SimpleQueue

import msgspec

from millm.cli.chunks import ChunkReceipt, ChunkUsage
from millm.cli.figures import Percentiles, summarize_percentiles
from millm.cli.remote import RemoteServer
from millm.errors import MillmError, Unavailable

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
