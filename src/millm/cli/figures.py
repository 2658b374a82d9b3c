"""What samples say: percentiles, a bootstrap interval, things measured in turn. Pure; knows no server."""

import random
import statistics
from collections.abc import Callable, Sequence
from typing import TypeVar

import msgspec

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
