"""Finds by bisection the largest multiple of a steering's strengths whose answers stay coherent."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from fastapi import Request

from millm.experiments.run import (
    ResolvedExperiment,
    average_answers,
    base_job,
    measure_answers,
    resolve_experiment,
    steered_job,
)
from millm.experiments.schemas import CalibrateRequest, Guard, GuardLimits, ScaleMeans, SteeringCalibration, Strength
from millm.experiments.sweep import resolve_scaled, scale_strengths
from millm.generation.request import GenerationRequest
from millm.state import State

MAX_STEPS = 6
"""Multiples measured after the base model."""
MeasureScale = Callable[[float], Awaitable[ScaleMeans]]


@dataclass(frozen=True)
class CalibrationPlan:
    """A validated calibration."""

    experiment: ResolvedExperiment
    job: GenerationRequest
    seeds: list[int]
    guard: Guard
    max_scale: float


@dataclass
class ScaleSearch:
    """The bisection and its measurements."""

    guard: Guard
    base: ScaleMeans
    measured: list[ScaleMeans] = field(default_factory=list)

    def is_within_guard(self, means: ScaleMeans) -> bool:
        """False also for answers without tokens."""
        if means.perplexity is None or self.base.perplexity is None:
            return False
        ratio = means.perplexity / self.base.perplexity
        return ratio <= self.guard.max_perplexity_ratio and means.repetition <= self.guard.max_repetition

    async def find_largest(self, measure: MeasureScale, max_scale: float) -> float | None:
        """The largest measured multiple within the guard, after at most `MAX_STEPS`; None without one."""
        low, high = 0.0, max_scale
        for step in range(MAX_STEPS):
            scale = max_scale if step == 0 else (low + high) / 2
            self.measured.append(await measure(scale))
            if not self.is_within_guard(self.measured[-1]):
                high = scale
            elif scale == max_scale:
                return max_scale
            else:
                low = scale
        return low or None


async def plan_calibration(state: State, body: CalibrateRequest) -> CalibrationPlan:
    """Raises what `resolve_experiment`, `resolve_scaled` and `base_job` raise."""
    experiment = await resolve_experiment(state, body)
    resolve_scaled(state, experiment.request, body.most)
    return CalibrationPlan(experiment, await base_job(state, experiment), body.seeds, body.guard, body.most)


async def calibrate(state: State, request: Request, plan: CalibrationPlan) -> SteeringCalibration:
    """Raises MillmError if an answer fails."""

    async def measure(scale: float) -> ScaleMeans:
        steering = resolve_scaled(state, plan.experiment.request, scale)
        job = steered_job(plan.job, plan.experiment, steering, plan.seeds, f"x{scale:g}")
        return average_answers(scale, await measure_answers(state, request, job, scale))

    search = ScaleSearch(plan.guard, await measure(0.0))
    scale = await search.find_largest(measure, plan.max_scale)
    return SteeringCalibration(
        model=plan.experiment.selection.model.name,
        scale=scale,
        strengths=()
        if scale is None
        else tuple(
            Strength(index=one.index, sae=one.sae, strength=one.strength, unit=one.unit, mode=one.mode)
            for one in scale_strengths(plan.experiment.request, scale).features
        ),
        note=_note(search, scale, plan.max_scale),
        points=tuple(sorted([search.base, *search.measured], key=lambda means: means.scale or 0.0)),
        guard=GuardLimits(**plan.guard.model_dump()),
    )


def _note(search: ScaleSearch, scale: float | None, max_scale: float) -> str:
    if scale is None:
        least = min(means.scale or 0.0 for means in search.measured)
        return f"Even the smallest multiple tried, {least:g}, does not keep to the guard; nothing is suggested."
    if scale == max_scale:
        return f"The largest multiple tried, {max_scale:g}, keeps to the guard; `most` may be larger."
    return f"{scale:g} keeps to the guard and the next larger multiple tried does not; nothing was changed."
