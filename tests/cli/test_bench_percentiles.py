"""Percentiles, against numpy and the standard library."""

import statistics

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from millm.cli.bench import Percentiles, percentile, summarize_percentiles

samples = st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=40)


@given(samples, st.floats(0, 1))
def test_percentile_equals_numpys(values: list[float], share: float) -> None:
    assert percentile(values, share) == pytest.approx(np.percentile(values, 100 * share), rel=1e-9, abs=1e-6)


@given(samples)
def test_the_middle_percentile_is_the_median(values: list[float]) -> None:
    assert percentile(values, 0.5) == pytest.approx(statistics.median(values))


def test_no_samples() -> None:
    assert summarize_percentiles([]) is None
    with pytest.raises(ValueError, match="no samples"):
        percentile([], 0.5)


def test_percentiles_are_scaled() -> None:
    assert summarize_percentiles([0.1, 0.2, 0.3], scale=1000) == Percentiles(200.0, 290.0)
