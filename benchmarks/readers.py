"""Many readers of one server: levels as `millm bench` measures them, and throughput to compare with."""

import time
from collections.abc import Mapping, Sequence

from benchmarks.generate import Written
from benchmarks.servers import Running
from millm.cli.load import Answer, Body, Level, Outcome, answers, level
from millm.cli.questions import SIZES, questions
from millm.errors import MillmError


def levels(server: Running, model: str, tokens: int, requests: Mapping[int, int], extra: Body) -> list[Level]:
    """`requests`: per number of readers at once, one after another, each with prompts of its own, after a warm-up."""
    found = []
    first = len(SIZES)
    _outcomes(server, bodies(model, questions(0, first), tokens, extra), 1)
    for concurrency, count in requests.items():
        asked = bodies(model, questions(first, count), tokens, extra)
        outcomes, seconds = _outcomes(server, asked, concurrency)
        found.append(level(concurrency, outcomes, seconds))
        first += count
    return found


def together(server: Running, model: str, prompts: Sequence[str], tokens: int) -> Written:
    """All prompts at once. Raises the first error."""
    outcomes, seconds = _outcomes(server, bodies(model, prompts, tokens, {"steering": None}), len(prompts))
    for outcome in outcomes:
        if isinstance(outcome, MillmError):
            raise outcome
    return Written(sum(answer.tokens for answer in outcomes if isinstance(answer, Answer)), seconds)


def bodies(model: str, prompts: Sequence[str], tokens: int, extra: Body) -> list[Body]:
    return [
        {"model": model, "messages": [{"role": "user", "content": prompt}], "temperature": 0, "max_tokens": tokens}
        | extra
        for prompt in prompts
    ]


def _outcomes(server: Running, asked: Sequence[Body], concurrency: int) -> tuple[list[Outcome], float]:
    started = time.perf_counter()
    outcomes = list(answers(server.remote, asked, concurrency))
    return outcomes, time.perf_counter() - started
