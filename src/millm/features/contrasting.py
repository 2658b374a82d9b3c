"""Which features separate two sets of texts: one number for each feature and text, and a standardised difference.

A text's number is the feature's mean activation over its tokens, so that long texts do not weigh more. The score is
Welch's t with a constant added to its denominator, as in SAM (Tusher, Tibshirani & Chu 2001,
doi:10.1073/pnas.091062498): without it, features that hardly fire and never vary come first. Pure; knows no model.
"""

import math
import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from millm.engine.messages import FeaturesScanned

MIN_S0_SHARE = 1e-3
"""Of the residual norm: the constant is at least that, also where nothing varies."""


class Separation(msgspec.Struct, frozen=True, kw_only=True):
    """One feature on both sets of texts."""

    index: int
    score: float
    """(mean_a − mean_b) / (standard error + s0)."""
    auc: float
    """How often a text of A has more of it than one of B, 0 to 1; ties count half."""
    mean_a: float
    """Mean over the texts of the mean activation per token."""
    mean_b: float
    largest: float
    """At any token of either set."""


class Contrast(msgspec.Struct, frozen=True, kw_only=True):
    """The features that fire more on A, and those that fire more on B, the clearest first."""

    more_in_a: tuple[Separation, ...]
    more_in_b: tuple[Separation, ...]
    s0: float
    """What was added to the denominators, in residual units."""


def contrast(
    a: Sequence[FeaturesScanned], b: Sequence[FeaturesScanned], *, limit: int, residual_norm: float
) -> Contrast:
    """At most `limit` each way. Each set has one text or more."""
    numbers = _mean_activations(a, b)
    differences = {index: _mean_difference(*both) for index, both in numbers.items()}
    errors = [error for _, error in differences.values()]
    s0 = max(statistics.median(errors) if errors else 0.0, MIN_S0_SHARE * residual_norm)
    scores = {index: difference / (error + s0) for index, (difference, error) in differences.items()}
    largest = _max_activations([*a, *b])

    def told(ordered: Iterable[int], sign: int) -> tuple[Separation, ...]:
        kept = [index for index in ordered if sign * scores[index] > 0][:limit]
        return tuple(_build_separation(index, scores[index], *numbers[index], largest[index]) for index in kept)

    falling = sorted(scores, key=lambda index: (-scores[index], index))
    return Contrast(more_in_a=told(falling, 1), more_in_b=told(reversed(falling), -1), s0=s0)


def _build_separation(index: int, score: float, a: Sequence[float], b: Sequence[float], largest: float) -> Separation:
    return Separation(
        index=index,
        score=score,
        auc=roc_auc(a, b),
        mean_a=_mean(a),
        mean_b=_mean(b),
        largest=largest,
    )


def roc_auc(a: Sequence[float], b: Sequence[float]) -> float:
    """P(x > y) + ½ P(x = y) for x of `a` and y of `b`: the area under the ROC curve (Hanley & McNeil 1982)."""
    above = sum((x > y) + 0.5 * (x == y) for x in a for y in b)
    return above / (len(a) * len(b))


def _mean_activations(
    a: Sequence[FeaturesScanned], b: Sequence[FeaturesScanned]
) -> Mapping[int, tuple[list[float], list[float]]]:
    """Feature → its mean activation per token on each text of either set; 0 where it never fired."""
    found: dict[int, tuple[list[float], list[float]]] = defaultdict(lambda: ([0.0] * len(a), [0.0] * len(b)))
    for side, texts in enumerate((a, b)):
        for place, text in enumerate(texts):
            for fired in text.features:
                found[fired.index][side][place] = fired.total / text.tokens
    return found


def _mean_difference(a: Sequence[float], b: Sequence[float]) -> tuple[float, float]:
    """(difference of the means, its standard error after Welch)."""
    return _mean(a) - _mean(b), math.sqrt(_squared_standard_error(a) + _squared_standard_error(b))


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def _squared_standard_error(values: Sequence[float]) -> float:
    """Of their mean; of a single text nothing is known about how it varies."""
    if len(values) < 2:
        return 0.0
    mean = _mean(values)
    return math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1) / len(values)


def _max_activations(texts: Sequence[FeaturesScanned]) -> Mapping[int, float]:
    found: dict[int, float] = defaultdict(float)
    for text in texts:
        for fired in text.features:
            found[fired.index] = max(found[fired.index], fired.largest)
    return found
