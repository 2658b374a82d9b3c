"""Ratios of things measured in turn: counterbalanced runs, and the median ratio with its bootstrap interval."""

import random
import statistics
from collections.abc import Callable, Sequence
from typing import TypeVar

import msgspec

from millm.cli.bench import percentile

T = TypeVar("T")


class RatioEstimate(msgspec.Struct, frozen=True):
    """The median of the blocks' ratios, and its bootstrap 95 % interval."""

    ratio: float
    interval_95: tuple[float, float]
    blocks: int


def bootstrap_interval(values: Sequence[float], *, draws: int = 2000) -> tuple[float, float]:
    """Bootstrap 95 % interval of the median, by percentiles (Efron & Tibshirani 1993, ch. 13); the same every time.

    Raises ValueError without samples.
    """
    rng = random.Random(0)
    medians = [statistics.median(rng.choices(values, k=len(values))) for _ in range(draws)] if values else []
    return percentile(medians, 0.025), percentile(medians, 0.975)


def summarize_ratios(ratios: Sequence[float]) -> RatioEstimate:
    """One ratio per block. Raises ValueError without blocks."""
    low, high = bootstrap_interval(ratios)
    return RatioEstimate(round(statistics.median(ratios), 4), (round(low, 4), round(high, 4)), len(ratios))


def run_counterbalanced(runs: Sequence[Callable[[], T]]) -> list[tuple[T, T]]:
    """Each of `runs` twice, in order and then in reverse (A, B, B, A): a drift that is linear in time cancels."""
    forward = [run() for run in runs]
    backward = [run() for run in reversed(runs)]
    return list(zip(forward, reversed(backward), strict=True))
