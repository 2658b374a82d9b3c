"""Things compared in one run, in turn: blocks of there and back (A, B, B, A), as many as a time allows."""

import time
from collections.abc import Callable, Iterator, Mapping
from typing import TypeVar

from benchmarks.ratios import run_counterbalanced
from benchmarks.record import FAILURES
from millm.errors import Unavailable

T = TypeVar("T")

FEWEST = 3
"""Minimum number of blocks for an interval."""

Block = dict[str, tuple[T, T]]
"""Per name, the way there and the way back."""


def blocks(runs: Mapping[str, Callable[[], T]], most: int, seconds: float) -> list[Block[T]]:
    """Up to `most` blocks, as many as start within `seconds`, but at least FEWEST (if `most` allows).

    A block in which a run fails is repeated, until `most` have failed. Raises Unavailable when all have.
    """
    done: list[Block[T]] = []
    lost: list[str] = []
    for _ in _while_there_is_time(done, most, seconds):
        try:
            done.append(dict(zip(runs, run_counterbalanced(list(runs.values())), strict=True)))
        except FAILURES as failure:
            lost.append(str(failure))
            print(f"  a block was lost: {failure}", flush=True)
        if len(lost) >= most:
            break
    if not done:
        raise Unavailable(f"{len(lost)} blocks failed, the last with: {lost[-1]}")
    return done


def _while_there_is_time(done: list[Block[T]], most: int, seconds: float) -> Iterator[None]:
    deadline = time.monotonic() + seconds
    while len(done) < most and (len(done) < FEWEST or time.monotonic() < deadline):
        yield
