"""The largest multiple of a steering's strengths whose answers still read like answers, by bisection."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from fastapi import Request

from millm.experiments.asking import Question, base_job, question, steered
from millm.experiments.bodies import Calibrate, Guard
from millm.experiments.measuring import means, points
from millm.experiments.scaling import resolved, scaled
from millm.experiments.told import Calibration, GuardTold, Means, Strength
from millm.openai.job import Job
from millm.state import State

STEPS = 6
"""Multiples that are tried, after the base model."""

Measure = Callable[[float], Awaitable[Means]]


@dataclass(frozen=True)
class Plan:
    """Everything, checked before anything is begun."""

    about: Question
    job: Job
    seeds: list[int]
    guard: Guard
    most: float


@dataclass
class Search:
    """What was tried, and what is known by it."""

    guard: Guard
    base: Means
    tried: list[Means] = field(default_factory=list)

    def keeps(self, found: Means) -> bool:
        """To the guard; an answer without tokens says nothing and does not."""
        if found.perplexity is None or self.base.perplexity is None:
            return False
        ratio = found.perplexity / self.base.perplexity
        return ratio <= self.guard.max_perplexity_ratio and found.repetition <= self.guard.max_repetition

    async def largest(self, measure: Measure, most: float) -> float | None:
        """The largest multiple tried that keeps to the guard, STEPS tried at most; None: none does."""
        low, high = 0.0, most
        for step in range(STEPS):
            scale = most if step == 0 else (low + high) / 2
            self.tried.append(await measure(scale))
            if not self.keeps(self.tried[-1]):
                high = scale
            elif scale == most:
                return most
            else:
                low = scale
        return low or None


async def plan(state: State, body: Calibrate) -> Plan:
    """Raises what `question`, `resolved` and the job raise."""
    about = await question(state, body)
    resolved(state, about.asked, body.most)
    return Plan(about, await base_job(state, about), body.seeds, body.guard, body.most)


async def calibrate(state: State, request: Request, made: Plan) -> Calibration:
    """Raises MillmError when an answer fails."""

    async def measure(scale: float) -> Means:
        steering = resolved(state, made.about.asked, scale)
        job = steered(made.job, made.about, steering, made.seeds, f"x{scale:g}")
        return means(scale, await points(state, request, job, scale))

    search = Search(made.guard, await measure(0.0))
    scale = await search.largest(measure, made.most)
    return Calibration(
        model=made.about.selection.model.name,
        scale=scale,
        strengths=() if scale is None else _strengths(made.about, scale),
        note=_note(search, scale, made.most),
        points=tuple(sorted([search.base, *search.tried], key=lambda found: found.scale or 0.0)),
        guard=GuardTold(max_perplexity_ratio=made.guard.max_perplexity_ratio, max_repetition=made.guard.max_repetition),
    )


def _strengths(about: Question, scale: float) -> tuple[Strength, ...]:
    return tuple(
        Strength(index=one.index, sae=one.sae, strength=one.strength, unit=one.unit, mode=one.mode)
        for one in scaled(about.asked, scale).features
    )


def _note(search: Search, scale: float | None, most: float) -> str:
    if scale is None:
        least = min(found.scale or 0.0 for found in search.tried)
        return f"Even the smallest multiple tried, {least:g}, does not keep to the guard; nothing is suggested."
    if scale == most:
        return f"The largest multiple tried, {most:g}, keeps to the guard; `most` may be larger."
    return f"{scale:g} keeps to the guard and the next larger multiple tried does not; nothing was changed."
