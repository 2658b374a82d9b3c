"""The same question answered side by side: by the base model, steered, and asked by a system prompt instead."""

import secrets
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import cast

import msgspec
from fastapi import Request
from msgspec import UNSET

from millm.experiments.asking import base_job, question, steered, system_prompt_job
from millm.experiments.bodies import Compare
from millm.experiments.told import Column, ColumnEnd, ColumnText, CompareBegun, CompareEnd, Comparison
from millm.openai.extension import receipt_of
from millm.openai.job import Job
from millm.openai.pieces import Piece
from millm.openai.schemas.answers import PromptDetails, Usage
from millm.openai.telling import pieces_of
from millm.profiles.selection import Selection
from millm.state import State

BASELINE, STEERED, SYSTEM_PROMPT = "baseline", "steered", "system_prompt"


@dataclass(frozen=True)
class Columns:
    """All columns as one job with a sequence each: the engine starts all of them or none."""

    names: tuple[str, ...]
    job: Job
    seed: int
    selections: tuple[Selection, ...]


async def columns(state: State, body: Compare) -> Columns:
    """Raises what `question` and the jobs raise."""
    about = await question(state, body)
    seed = secrets.randbelow(2**31) if body.seed is None else body.seed
    base = await base_job(state, about)
    jobs = {
        BASELINE: steered(base, about, None, [seed], BASELINE),
        STEERED: steered(base, about, about.steering, [seed], STEERED),
    }
    if body.system_prompt is not None:
        asked = await system_prompt_job(state, about, body.system_prompt)
        jobs[SYSTEM_PROMPT] = steered(asked, about, None, [seed], SYSTEM_PROMPT)
    sequences = tuple(sequence for job in jobs.values() for sequence in job.sequences)
    selections = tuple(about.selection if name == STEERED else base.selection for name in jobs)
    return Columns(tuple(jobs), replace(jobs[STEERED], sequences=sequences), seed, selections)


async def compare(state: State, request: Request, made: Columns) -> AsyncGenerator[msgspec.Struct]:
    """The events, as they come. Raises MillmError when one of the columns fails; closing it cancels all."""
    yield CompareBegun(model=made.job.selection.model.name, seed=made.seed, columns=made.names)
    ids: list[list[int]] = [[] for _ in made.names]
    pieces = await pieces_of(state.engine, made.job, request)
    async with aclosing(pieces):
        async for piece in pieces:
            ids[piece.choice] += [token.token for token in piece.tokens]
            if piece.text or piece.reasoning:
                name = made.names[piece.choice]
                yield ColumnText(column=name, text=piece.text, reasoning=piece.reasoning or UNSET)
            if piece.end:
                yield _end(made, piece)
    tokens = [len(sequence.prompt) for sequence in made.job.sequences]
    yield CompareEnd(divergence=divergence(ids[0], ids[1]), prompt_tokens=dict(zip(made.names, tokens, strict=True)))


async def compared(state: State, request: Request, made: Columns) -> Comparison:
    """The events joined."""
    chunks = [chunk async for chunk in compare(state, request, made)]
    last = cast(CompareEnd, chunks[-1])
    return Comparison(
        model=made.job.selection.model.name,
        seed=made.seed,
        columns=tuple(_whole(name, chunks) for name in made.names),
        divergence=last.divergence,
        prompt_tokens=last.prompt_tokens,
    )


def divergence(ones: Sequence[int], others: Sequence[int]) -> int | None:
    """The first place in which two rows of tokens differ, be it that one has ended; None: they are the same."""
    shared = min(len(ones), len(others))
    differing = next((place for place in range(shared) if ones[place] != others[place]), shared)
    return None if len(ones) == len(others) == differing else differing


def _end(made: Columns, piece: Piece) -> ColumnEnd:
    assert piece.end
    prompt = len(made.job.sequences[piece.choice].prompt)
    return ColumnEnd(
        column=made.names[piece.choice],
        finish_reason=piece.end.reason,
        usage=Usage(
            prompt_tokens=prompt,
            completion_tokens=piece.end.tokens,
            total_tokens=prompt + piece.end.tokens,
            prompt_tokens_details=PromptDetails(cached_tokens=piece.end.cached_tokens),
        ),
        receipt=receipt_of(made.selections[piece.choice], [piece], watching=False, sample_every=UNSET),
    )


def _whole(name: str, chunks: Sequence[msgspec.Struct]) -> Column:
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
