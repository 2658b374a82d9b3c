"""One question answered side by side: by the base model, steered, and with a system prompt instead of steering."""

import secrets
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import cast

import msgspec
from fastapi import Request
from msgspec import UNSET

from millm.experiments.run import base_job, resolve_experiment, steered_job, system_prompt_job
from millm.experiments.schemas import (
    Column,
    ColumnEnd,
    ColumnText,
    CompareEnd,
    CompareRequest,
    CompareStart,
    Comparison,
)
from millm.generation.output import OutputDelta, build_extension, start_generation
from millm.generation.request import GenerationRequest
from millm.lifecycle.selection import Selection
from millm.protocol.response import PromptDetails, Usage
from millm.state import State

BASELINE, STEERED, SYSTEM_PROMPT = "baseline", "steered", "system_prompt"


@dataclass(frozen=True)
class ComparisonPlan:
    """All columns as one generation request with a sequence each: the engine starts all of them or none."""

    names: tuple[str, ...]
    job: GenerationRequest
    seed: int
    selections: tuple[Selection, ...]


async def plan_comparison(state: State, body: CompareRequest) -> ComparisonPlan:
    """Raises what `resolve_experiment` and the jobs raise."""
    experiment = await resolve_experiment(state, body)
    seed = secrets.randbelow(2**31) if body.seed is None else body.seed
    base = await base_job(state, experiment)
    jobs = {
        BASELINE: steered_job(base, experiment, None, [seed], BASELINE),
        STEERED: steered_job(base, experiment, experiment.steering, [seed], STEERED),
    }
    if body.system_prompt is not None:
        prompted = await system_prompt_job(state, experiment, body.system_prompt)
        jobs[SYSTEM_PROMPT] = steered_job(prompted, experiment, None, [seed], SYSTEM_PROMPT)
    sequences = tuple(sequence for job in jobs.values() for sequence in job.sequences)
    selections = tuple(experiment.selection if name == STEERED else base.selection for name in jobs)
    return ComparisonPlan(tuple(jobs), replace(jobs[STEERED], sequences=sequences), seed, selections)


async def stream_comparison(state: State, request: Request, plan: ComparisonPlan) -> AsyncGenerator[msgspec.Struct]:
    """The events. Raises MillmError if a column fails; closing the generator cancels all columns."""
    yield CompareStart(model=plan.job.selection.model.name, seed=plan.seed, columns=plan.names)
    ids: list[list[int]] = [[] for _ in plan.names]
    deltas = await start_generation(state.engine, plan.job, request)
    async with aclosing(deltas):
        async for delta in deltas:
            ids[delta.choice] += [token.token for token in delta.tokens]
            if delta.text or delta.reasoning:
                name = plan.names[delta.choice]
                yield ColumnText(column=name, text=delta.text, reasoning=delta.reasoning or UNSET)
            if delta.end:
                yield _column_end(plan, delta)
    tokens = [len(sequence.prompt) for sequence in plan.job.sequences]
    yield CompareEnd(
        divergence=first_divergence(ids[0], ids[1]), prompt_tokens=dict(zip(plan.names, tokens, strict=True))
    )


async def collect_comparison(state: State, request: Request, plan: ComparisonPlan) -> Comparison:
    """The events of `stream_comparison` as one object."""
    chunks = [chunk async for chunk in stream_comparison(state, request, plan)]
    last = cast(CompareEnd, chunks[-1])
    return Comparison(
        model=plan.job.selection.model.name,
        seed=plan.seed,
        columns=tuple(_join_column(name, chunks) for name in plan.names),
        divergence=last.divergence,
        prompt_tokens=last.prompt_tokens,
    )


def first_divergence(first: Sequence[int], second: Sequence[int]) -> int | None:
    """The first position at which two token sequences differ, or the shorter length; None where they are equal."""
    shared = min(len(first), len(second))
    differing = next((position for position in range(shared) if first[position] != second[position]), shared)
    return None if len(first) == len(second) == differing else differing


def _column_end(plan: ComparisonPlan, delta: OutputDelta) -> ColumnEnd:
    assert delta.end
    prompt = len(plan.job.sequences[delta.choice].prompt)
    return ColumnEnd(
        column=plan.names[delta.choice],
        finish_reason=delta.end.reason,
        usage=Usage(
            prompt_tokens=prompt,
            completion_tokens=delta.end.tokens,
            total_tokens=prompt + delta.end.tokens,
            prompt_tokens_details=PromptDetails(cached_tokens=delta.end.cached_tokens),
        ),
        receipt=build_extension(plan.selections[delta.choice], [delta], watching=False, sample_every=UNSET),
    )


def _join_column(name: str, chunks: Sequence[msgspec.Struct]) -> Column:
    texts = [chunk for chunk in chunks if isinstance(chunk, ColumnText) and chunk.column == name]
    (end,) = [chunk for chunk in chunks if isinstance(chunk, ColumnEnd) and chunk.column == name]
    return Column(
        column=name,
        text="".join(chunk.text for chunk in texts),
        reasoning="".join(chunk.reasoning or "" for chunk in texts) or UNSET,
        finish_reason=end.finish_reason,
        usage=end.usage,
        receipt=end.receipt,
    )
