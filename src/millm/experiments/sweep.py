"""One question answered at several multiples of a steering's strengths, each answer measured."""

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import cast

import msgspec
from fastapi import Request
from msgspec import UNSET
from msgspec.structs import replace

from millm.errors import InvalidSteering
from millm.experiments.run import (
    average_answers,
    base_job,
    measure_answers,
    resolve_experiment,
    steered_job,
    system_prompt_job,
)
from millm.experiments.schemas import MeasuredAnswer, ScaleMeans, SweepEnd, SweepRequest, SweepResult, SweepStart
from millm.generation.request import GenerationRequest
from millm.profiles.resolve import resolve_steering
from millm.profiles.schema import SteeringRequest
from millm.sae.steering import Steering
from millm.state import State

SCALABLE_MODES = ("add", "clamp", "min_clamp")
"""The modes with a strength to multiply."""
SYSTEM_PROMPT = "system-prompt"


def scale_strengths(request: SteeringRequest, multiple: float) -> SteeringRequest:
    """Raises InvalidSteering for a mode that has no strength to multiply."""
    for one in request.features:
        if one.mode not in SCALABLE_MODES:
            raise InvalidSteering(
                f"feature {one.index}: mode {one.mode!r} has no strength to multiply; use 'add', 'clamp' or"
                " 'min_clamp', or leave the feature out",
                param="steering.features",
            )
    features = tuple(one.model_copy(update={"strength": one.strength * multiple}) for one in request.features)
    return request.model_copy(update={"features": features})


def resolve_scaled(state: State, request: SteeringRequest, multiple: float) -> Steering | None:
    """The scaled steering for the engine; None at 0, the base model in every mode. Raises InvalidSteering."""
    steering = resolve_steering(state.saes, scale_strengths(request, multiple))
    return steering if multiple else None


@dataclass(frozen=True)
class SweepPlan:
    """A job per multiple, ascending; last that of the system prompt, whose multiple is None."""

    model: str
    seeds: tuple[int, ...]
    jobs: tuple[tuple[float | None, GenerationRequest], ...]


async def plan_sweep(state: State, body: SweepRequest) -> SweepPlan:
    """Validate everything before the first answer. Raises what `resolve_experiment` and the jobs raise."""
    experiment = await resolve_experiment(state, body)
    steerings = {scale: resolve_scaled(state, experiment.request, scale) for scale in sorted({0.0, *body.scales})}
    base = await base_job(state, experiment)
    jobs: list[tuple[float | None, GenerationRequest]] = [
        (scale, steered_job(base, experiment, steering, body.seeds, f"x{scale:g}"))
        for scale, steering in steerings.items()
    ]
    if body.system_prompt is not None:
        prompted = await system_prompt_job(state, experiment, body.system_prompt)
        jobs.append((None, steered_job(prompted, experiment, None, body.seeds, SYSTEM_PROMPT)))
    return SweepPlan(experiment.selection.model.name, tuple(body.seeds), tuple(jobs))


async def stream_sweep(state: State, request: Request, plan: SweepPlan) -> AsyncGenerator[msgspec.Struct]:
    """The events. Raises MillmError if an answer fails; closing the generator cancels the current answer."""
    scales = tuple(scale for scale, _ in plan.jobs if scale is not None)
    total = len(plan.jobs) * len(plan.seeds)
    yield SweepStart(model=plan.model, scales=scales, seeds=plan.seeds, total=total)
    done, summary = 0, list[ScaleMeans]()
    for scale, job in plan.jobs:
        answers = await measure_answers(state, request, job, scale)
        summary.append(average_answers(scale, answers))
        for point in answers:
            done += 1
            yield replace(point, done=done)
    plain = plan.jobs[0][1].prompt_tokens
    with_system = [job.prompt_tokens for scale, job in plan.jobs if scale is None]
    extra = with_system[0] - plain if with_system else UNSET
    yield SweepEnd(summary=tuple(summary), prompt_tokens=plain, system_prompt_tokens=extra)


async def collect_sweep(state: State, request: Request, plan: SweepPlan) -> SweepResult:
    """The events of `stream_sweep` as one object."""
    chunks = [chunk async for chunk in stream_sweep(state, request, plan)]
    last = cast(SweepEnd, chunks[-1])
    return SweepResult(
        model=plan.model,
        points=tuple(chunk for chunk in chunks if isinstance(chunk, MeasuredAnswer)),
        summary=last.summary,
        prompt_tokens=last.prompt_tokens,
        system_prompt_tokens=last.system_prompt_tokens,
    )
