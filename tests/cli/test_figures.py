"""The mathematics of the benchmarks, each in two ways."""

import random
import statistics

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from millm.cli.bench import (
    Percentiles,
    bootstrap_interval,
    percentile,
    run_counterbalanced,
    summarize_percentiles,
    summarize_ratios,
)

samples = st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=40)


@given(samples, st.floats(0, 1))
def test_a_percentile_is_numpys(values: list[float], share: float) -> None:
    assert percentile(values, share) == pytest.approx(np.percentile(values, 100 * share), rel=1e-9, abs=1e-6)


@given(samples)
def test_the_middle_percentile_is_the_median(values: list[float]) -> None:
    assert percentile(values, 0.5) == pytest.approx(statistics.median(values))


def test_no_samples() -> None:
    assert summarize_percentiles([]) is None
    with pytest.raises(ValueError, match="no samples"):
        percentile([], 0.5)
    with pytest.raises(ValueError, match="no samples"):
        bootstrap_interval([])


def test_a_spread_is_in_the_unit_asked_for() -> None:
    assert summarize_percentiles([0.1, 0.2, 0.3], scale=1000) == Percentiles(200.0, 290.0)


def test_an_interval_holds_the_true_median_about_19_times_in_20() -> None:
    rng = random.Random(1)
    held = 0
    for _ in range(200):
        low, high = bootstrap_interval([rng.gauss(1.0, 0.1) for _ in range(24)], draws=300)
        held += low <= 1.0 <= high
    assert 180 <= held <= 200


def test_an_interval_narrows_with_samples_and_is_the_same_every_time() -> None:
    rng = random.Random(2)
    values = [rng.gauss(0, 1) for _ in range(400)]
    low, high = bootstrap_interval(values)
    few_low, few_high = bootstrap_interval(values[:10])
    assert high - low < few_high - few_low
    assert (low, high) == bootstrap_interval(values)


def test_a_ratio_lies_within_its_interval() -> None:
    found = summarize_ratios([0.99, 1.01, 1.0, 1.02, 0.98])
    low, high = found.interval_95
    assert (low <= found.ratio <= high, found.ratio, found.blocks) == (True, 1.0, 5)


@given(st.lists(st.floats(1, 100), min_size=1, max_size=5), st.floats(-1, 1))
def test_there_and_back_cancels_a_drift(true_values: list[float], drift: float) -> None:
    """Every run measures its true value plus a drift that grows with each run: the same for all, on average."""
    clock = iter(range(100))
    runs = [lambda value=value: value + drift * next(clock) for value in true_values]
    means = [(there + back) / 2 for there, back in run_counterbalanced(runs)]
    shared = drift * (2 * len(runs) - 1) / 2
    assert means == pytest.approx([value + shared for value in true_values])


def test_there_and_back_runs_in_turn() -> None:
    ran: list[str] = []
    run_counterbalanced([lambda: ran.append("a"), lambda: ran.append("b")])
    assert ran == ["a", "b", "b", "a"]
