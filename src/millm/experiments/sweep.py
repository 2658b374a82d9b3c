"""The same question at one multiple of the strengths after another, every answer measured.

A steering with all of its strengths multiplied.
"""

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
"""The modes whose strength is an amount."""


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
    """For the engine; None at 0, which is the base model whatever the mode. Raises InvalidSteering."""
    steering = resolve_steering(state.saes, scale_strengths(request, multiple))
    return steering if multiple else None


SYSTEM_PROMPT = "system-prompt"


@dataclass(frozen=True)
class SweepPlan:
    """A job for each multiple, in order; at last the system prompt's, whose multiple is None."""

    model: str
    seeds: tuple[int, ...]
    jobs: tuple[tuple[float | None, GenerationRequest], ...]


async def plan_sweep(state: State, body: SweepRequest) -> SweepPlan:
    """Everything is checked before anything is begun. Raises what `question`, `resolved` and the jobs raise."""
    about = await resolve_experiment(state, body)
    steerings = {scale: resolve_scaled(state, about.request, scale) for scale in sorted({0.0, *body.scales})}
    base = await base_job(state, about)
    jobs: list[tuple[float | None, GenerationRequest]] = [
        (scale, steered_job(base, about, steering, body.seeds, f"x{scale:g}")) for scale, steering in steerings.items()
    ]
    if body.system_prompt is not None:
        asked = await system_prompt_job(state, about, body.system_prompt)
        jobs.append((None, steered_job(asked, about, None, body.seeds, SYSTEM_PROMPT)))
    return SweepPlan(about.selection.model.name, tuple(body.seeds), tuple(jobs))


async def stream_sweep(state: State, request: Request, plan: SweepPlan) -> AsyncGenerator[msgspec.Struct]:
    """The events, as they come. Raises MillmError when an answer fails; closing it cancels what is being written."""
    scales = tuple(scale for scale, _ in plan.jobs if scale is not None)
    total = len(plan.jobs) * len(plan.seeds)
    yield SweepStart(model=plan.model, scales=scales, seeds=plan.seeds, total=total)
    done, summary = 0, list[ScaleMeans]()
    for scale, job in plan.jobs:
        found = await measure_answers(state, request, job, scale)
        summary.append(average_answers(scale, found))
        for point in found:
            done += 1
            yield replace(point, done=done)
    yield _sweep_end(plan, tuple(summary))


async def collect_sweep(state: State, request: Request, plan: SweepPlan) -> SweepResult:
    """The events joined."""
    chunks = [chunk async for chunk in stream_sweep(state, request, plan)]
    last = cast(SweepEnd, chunks[-1])
    return SweepResult(
        model=plan.model,
        points=tuple(chunk for chunk in chunks if isinstance(chunk, MeasuredAnswer)),
        summary=last.summary,
        prompt_tokens=last.prompt_tokens,
        system_prompt_tokens=last.system_prompt_tokens,
    )


def _sweep_end(plan: SweepPlan, summary: tuple[ScaleMeans, ...]) -> SweepEnd:
    plain = plan.jobs[0][1].prompt_tokens
    asked = [job.prompt_tokens for scale, job in plan.jobs if scale is None]
    return SweepEnd(summary=summary, prompt_tokens=plain, system_prompt_tokens=asked[0] - plain if asked else UNSET)
