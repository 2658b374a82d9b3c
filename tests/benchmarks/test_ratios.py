"""Bootstrap intervals and counterbalanced runs."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.ratios import bootstrap_interval, run_counterbalanced, summarize_ratios


def test_no_samples() -> None:
    with pytest.raises(ValueError, match="no samples"):
        bootstrap_interval([])


def test_an_interval_holds_the_true_median_about_19_times_in_20() -> None:
    rng = random.Random(1)
    hits = 0
    for _ in range(200):
        low, high = bootstrap_interval([rng.gauss(1.0, 0.1) for _ in range(24)], draws=300)
        hits += low <= 1.0 <= high
    assert 180 <= hits <= 200


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
def test_counterbalanced_runs_cancel_a_linear_drift(true_values: list[float], drift: float) -> None:
    """Every run measures its true value plus a drift that grows with each run: the same for all, on average."""
    clock = iter(range(100))
    runs = [lambda value=value: value + drift * next(clock) for value in true_values]
    means = [(forward + backward) / 2 for forward, backward in run_counterbalanced(runs)]
    shared = drift * (2 * len(runs) - 1) / 2
    assert means == pytest.approx([value + shared for value in true_values])


def test_counterbalanced_runs_are_in_order_then_in_reverse() -> None:
    ran: list[str] = []
    run_counterbalanced([lambda: ran.append("a"), lambda: ran.append("b")])
    assert ran == ["a", "b", "b", "a"]
