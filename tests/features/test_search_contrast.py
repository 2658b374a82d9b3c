"""The contrast of two sets of texts: compared with numpy, and its invariances."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from millm.engine.messages import FeatureActivity, FeaturesScanned
from millm.features.search import MIN_S0_SHARE, contrast, roc_auc

NORM = 100.0
TOKENS = 10


def surveyed(means: list[list[float]]) -> list[FeaturesScanned]:
    """Texts of `TOKENS` tokens, in which feature j has a mean of `means[text][j]`."""
    return [
        FeaturesScanned(
            id=str(place),
            tokens=TOKENS,
            features=tuple(FeatureActivity(j, 1, TOKENS * mean, TOKENS * mean) for j, mean in enumerate(text) if mean),
        )
        for place, text in enumerate(means)
    ]


numbers = st.lists(
    st.lists(st.sampled_from([0.0, 0.0, 0.5, 1.0, 2.5, 7.0]), min_size=6, max_size=6), min_size=1, max_size=6
)


@given(numbers, numbers)
def test_scores_match_a_reference_formula(a: list[list[float]], b: list[list[float]]) -> None:
    found = contrast(surveyed(a), surveyed(b), limit=6, residual_norm=NORM)
    x, y = np.array(a), np.array(b)
    fired = (x != 0).any(0) | (y != 0).any(0)
    with np.errstate(invalid="ignore"):
        errors = np.sqrt(_variance(x) / len(x) + _variance(y) / len(y))
    s0 = max(float(np.median(errors[fired])) if fired.any() else 0.0, MIN_S0_SHARE * NORM)
    scores = (x.mean(0) - y.mean(0)) / (errors + s0)
    assert found.s0 == pytest.approx(s0)
    told = {one.index: one for one in (*found.more_in_a, *found.more_in_b)}
    assert set(told) == {j for j in np.flatnonzero(fired) if abs(scores[j]) > 1e-12}
    for j, one in told.items():
        assert one.score == pytest.approx(scores[j])
        assert (one.mean_a, one.mean_b) == pytest.approx((x[:, j].mean(), y[:, j].mean()))
        assert one.max == pytest.approx(TOKENS * max(x[:, j].max(), y[:, j].max()))
        assert one.auc == pytest.approx(_auc_by_ranks(x[:, j], y[:, j]))
    assert [one.score for one in found.more_in_a] == sorted((one.score for one in found.more_in_a), reverse=True)
    assert [one.score for one in found.more_in_b] == sorted(one.score for one in found.more_in_b)


@given(numbers, numbers)
def test_contrast_is_symmetric(a: list[list[float]], b: list[list[float]]) -> None:
    there = contrast(surveyed(a), surveyed(b), limit=6, residual_norm=NORM)
    back = contrast(surveyed(b), surveyed(a), limit=6, residual_norm=NORM)
    assert {one.index: one.score for one in there.more_in_a} == pytest.approx(
        {one.index: -one.score for one in back.more_in_b}
    )


def test_rare_constant_feature_does_not_rank_first() -> None:
    """Feature 0 is 0.001 in all of A; feature 1 is large, and varies."""
    a = [[0.001, 8.0], [0.001, 12.0], [0.001, 9.0]]
    b = [[0.0, 0.5], [0.0, 1.0], [0.0, 0.0]]
    found = contrast(surveyed(a), surveyed(b), limit=2, residual_norm=NORM)
    assert [one.index for one in found.more_in_a] == [1, 0]
    assert found.more_in_a[0].auc == 1.0


def test_text_length_does_not_weigh() -> None:
    short = FeaturesScanned(id="s", tokens=2, features=(FeatureActivity(0, 2, 4.0, 2.0),))
    long = FeaturesScanned(id="l", tokens=200, features=(FeatureActivity(0, 200, 400.0, 2.0),))
    silent = FeaturesScanned(id="n", tokens=5, features=())
    one, other = (contrast([text], [silent], limit=1, residual_norm=NORM).more_in_a for text in (short, long))
    assert one == other
    assert one[0].mean_a == 2.0


def test_limit_holds_per_direction() -> None:
    found = contrast(surveyed([[1.0, 2.0, 0, 0, 5.0]]), surveyed([[0, 0, 3.0, 4.0, 5.0]]), limit=1, residual_norm=NORM)
    assert ([one.index for one in found.more_in_a], [one.index for one in found.more_in_b]) == ([1], [3])


def test_no_separators_without_activations() -> None:
    found = contrast(surveyed([[0.0]]), surveyed([[0.0]]), limit=3, residual_norm=NORM)
    assert (found.more_in_a, found.more_in_b) == ((), ())


def test_roc_auc_counts_ties_half() -> None:
    assert roc_auc([1.0, 2.0], [1.0, 0.0]) == (0.5 + 1 + 1 + 1) / 4


def _variance(values: np.ndarray) -> np.ndarray:
    return values.var(0, ddof=1) if len(values) > 1 else np.zeros(values.shape[1])


def _auc_by_ranks(x: np.ndarray, y: np.ndarray) -> float:
    """Mann-Whitney U from the rank sum of A, with mid-ranks for ties."""
    both = np.concatenate([x, y])
    ranks = np.array([(both < value).sum() + ((both == value).sum() + 1) / 2 for value in both])
    return float((ranks[: len(x)].sum() - len(x) * (len(x) + 1) / 2) / (len(x) * len(y)))
