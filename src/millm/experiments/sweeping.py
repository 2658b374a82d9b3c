"""The same question at one multiple of the strengths after another, every answer measured."""

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import cast

import msgspec
from fastapi import Request
from msgspec import UNSET
from msgspec.structs import replace

from millm.experiments.asking import base_job, question, steered, system_prompt_job
from millm.experiments.bodies import Sweep
from millm.experiments.measuring import means, points
from millm.experiments.scaling import resolved
from millm.experiments.told import Means, Point, SweepBegun, SweepEnd, Swept
from millm.openai.job import Job
from millm.state import State

SYSTEM_PROMPT = "system-prompt"


@dataclass(frozen=True)
class Course:
    """A job for each multiple, in order; at last the system prompt's, whose multiple is None."""

    model: str
    seeds: tuple[int, ...]
    jobs: tuple[tuple[float | None, Job], ...]


async def course(state: State, body: Sweep) -> Course:
    """Everything is checked before anything is begun. Raises what `question`, `resolved` and the jobs raise."""
    about = await question(state, body)
    steerings = {scale: resolved(state, about.asked, scale) for scale in sorted({0.0, *body.scales})}
    base = await base_job(state, about)
    jobs: list[tuple[float | None, Job]] = [
        (scale, steered(base, about, steering, body.seeds, f"x{scale:g}")) for scale, steering in steerings.items()
    ]
    if body.system_prompt is not None:
        asked = await system_prompt_job(state, about, body.system_prompt)
        jobs.append((None, steered(asked, about, None, body.seeds, SYSTEM_PROMPT)))
    return Course(about.selection.model.name, tuple(body.seeds), tuple(jobs))


async def sweep(state: State, request: Request, made: Course) -> AsyncGenerator[msgspec.Struct]:
    """The events, as they come. Raises MillmError when an answer fails; closing it cancels what is being written."""
    scales = tuple(scale for scale, _ in made.jobs if scale is not None)
    total = len(made.jobs) * len(made.seeds)
    yield SweepBegun(model=made.model, scales=scales, seeds=made.seeds, total=total)
    done, summary = 0, list[Means]()
    for scale, job in made.jobs:
        found = await points(state, request, job, scale)
        summary.append(means(scale, found))
        for point in found:
            done += 1
            yield replace(point, done=done)
    yield _end(made, tuple(summary))


async def swept(state: State, request: Request, made: Course) -> Swept:
    """The events joined."""
    chunks = [chunk async for chunk in sweep(state, request, made)]
    last = cast(SweepEnd, chunks[-1])
    return Swept(
        model=made.model,
        points=tuple(chunk for chunk in chunks if isinstance(chunk, Point)),
        summary=last.summary,
        prompt_tokens=last.prompt_tokens,
        system_prompt_tokens=last.system_prompt_tokens,
    )


def _end(made: Course, summary: tuple[Means, ...]) -> SweepEnd:
    plain = made.jobs[0][1].prompt_tokens
    asked = [job.prompt_tokens for scale, job in made.jobs if scale is None]
    return SweepEnd(summary=summary, prompt_tokens=plain, system_prompt_tokens=asked[0] - plain if asked else UNSET)
