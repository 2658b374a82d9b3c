"""Many readers of one server: levels as `millm bench` measures them, and throughput to compare with."""

import time
from collections.abc import Mapping, Sequence

from benchmarks.generate import Written
from benchmarks.servers import Running
from millm.cli.bench import (
    PROMPT_LENGTHS,
    LevelResult,
    RequestBody,
    RequestResult,
    TimedAnswer,
    make_prompts,
    run_requests,
    summarize_level,
)
from millm.errors import MillmError


def levels(
    server: Running, model: str, tokens: int, requests: Mapping[int, int], extra: RequestBody
) -> list[LevelResult]:
    """`requests`: concurrency → number of requests. Levels run in turn after a warm-up, each with new prompts."""
    summaries = []
    first = len(PROMPT_LENGTHS)
    _outcomes(server, bodies(model, make_prompts(0, first), tokens, extra), 1)
    for concurrency, count in requests.items():
        request_bodies = bodies(model, make_prompts(first, count), tokens, extra)
        outcomes, seconds = _outcomes(server, request_bodies, concurrency)
        summaries.append(summarize_level(concurrency, outcomes, seconds))
        first += count
    return summaries


def together(
    server: Running, model: str, prompts: Sequence[str], tokens: int, extra: RequestBody | None = None
) -> Written:
    """All prompts at once, unsteered unless `extra` says otherwise. Raises the first error."""
    outcomes, seconds = _outcomes(server, bodies(model, prompts, tokens, extra or {"steering": None}), len(prompts))
    for outcome in outcomes:
        if isinstance(outcome, MillmError):
            raise outcome
    return Written(sum(answer.tokens for answer in outcomes if isinstance(answer, TimedAnswer)), seconds)


def bodies(model: str, prompts: Sequence[str], tokens: int, extra: RequestBody) -> list[RequestBody]:
    return [
        {"model": model, "messages": [{"role": "user", "content": prompt}], "temperature": 0, "max_tokens": tokens}
        | extra
        for prompt in prompts
    ]


def _outcomes(server: Running, requests: Sequence[RequestBody], concurrency: int) -> tuple[list[RequestResult], float]:
    started = time.perf_counter()
    outcomes = list(run_requests(server.remote, requests, concurrency))
    return outcomes, time.perf_counter() - started
