"""The answers as figures: means, intervals, and what a system prompt costs. Knows no model."""

import math
import random
import statistics
from collections.abc import Sequence
from typing import Any

from millm.experiments.run import repeated_trigram_share
from millm.profiles.schema import Profile
from tools.efficacy.measures import MEASURES, Metric
from tools.efficacy.measuring import MULTIPLES, Answer

DRAWS = 2000
Figures = dict[str, Any]


def profile_figures(profile: Profile, answers: Sequence[Answer], system_tokens: int, plain_tokens: float) -> Figures:
    """`system_tokens`: of its system prompt, above the template's own; `plain_tokens`: of a complete prompt."""
    measure = MEASURES[profile.name]
    base = [answer for answer in answers if not answer.profile]
    asked = [answer for answer in answers if answer.profile == profile.name and answer.asked]
    steered = [answer for answer in answers if answer.profile == profile.name and not answer.asked]
    by_multiple = {multiple: [one for one in steered if one.multiple == multiple] for multiple in MULTIPLES}
    return {
        "features": [feature.model_dump(exclude_none=True) for feature in profile.features],
        "shows_as": measure.shows_as,
        "system_prompt": measure.system_prompt,
        "base": way(measure.metric, base),
        "asked": {**way(measure.metric, asked), **beside(measure.metric, asked, base)},
        "steered": [
            {"multiple": multiple, **way(measure.metric, some), **beside(measure.metric, some, base), "kl": _kl(some)}
            for multiple, some in by_multiple.items()
        ],
        "steered_minus_asked_95": _rounded(difference_interval(measure.metric, by_multiple[1.0], asked)),
        "system_prompt_tokens": system_tokens,
        "system_prompt_share": round(system_tokens / (plain_tokens + system_tokens), 3),
        "steering_tokens": 0,
        "examples": [one.text for one in by_multiple[1.0] if one.prompt in (0, 4, 8)][:3],
    }


def way(metric: Metric, answers: Sequence[Answer]) -> Figures:
    told = [answer for answer in answers if answer.nll is not None]
    return {
        "effect": round(statistics.fmean(metric(answer.text) for answer in told), 4),
        "repetition": round(statistics.fmean(repeated_trigram_share(answer.text) for answer in told), 4),
        "perplexity": round(math.exp(statistics.fmean(answer.nll or 0.0 for answer in told)), 2),
        "answers": len(told),
    }


def beside(metric: Metric, ones: Sequence[Answer], base: Sequence[Answer]) -> Figures:
    effects = [[metric(answer.text) for answer in answers] for answers in (ones, base)]
    return {
        "minus_base_95": _rounded(difference_interval(metric, ones, base)),
        "cliffs_delta": round(cliffs_delta(*effects), 3),
    }


def cliffs_delta(ones: Sequence[float], others: Sequence[float]) -> float:
    """How much more often one of `ones` is the larger of a pair than the smaller: from -1 to 1 (Cliff 1993)."""
    signs = [(one > other) - (one < other) for one in ones for other in others]
    return sum(signs) / len(signs)


def difference_interval(metric: Metric, ones: Sequence[Answer], others: Sequence[Answer]) -> tuple[float, float]:
    """95 % interval of the difference of the means, by a bootstrap over questions, whose answers are correlated."""
    prompts = sorted({answer.prompt for answer in ones})
    of = [_by_prompt(metric, answers, prompts) for answers in (ones, others)]
    rng = random.Random(0)
    differences = sorted(_difference(of, [rng.randrange(len(prompts)) for _ in prompts]) for _ in range(DRAWS))
    return differences[int(0.025 * DRAWS)], differences[int(0.975 * DRAWS)]


def _difference(of: Sequence[Sequence[float]], drawn: Sequence[int]) -> float:
    ours, theirs = (statistics.fmean(values[place] for place in drawn) for values in of)
    return ours - theirs


def _by_prompt(metric: Metric, answers: Sequence[Answer], prompts: Sequence[int]) -> list[float]:
    """A question's mean effect over its seeds."""
    effects: dict[int, list[float]] = {prompt: [] for prompt in prompts}
    for answer in answers:
        effects[answer.prompt].append(metric(answer.text))
    return [statistics.fmean(values) for values in effects.values()]


def _kl(answers: Sequence[Answer]) -> float:
    return round(statistics.fmean(answer.kl for answer in answers if answer.kl is not None), 3)


def _rounded(interval: tuple[float, float]) -> list[float]:
    return [round(end, 4) for end in interval]


def at(found: Figures, multiple: float) -> Figures:
    """The figures at that multiple."""
    figures: Figures = next(one for one in found["steered"] if one["multiple"] == multiple)
    return figures
