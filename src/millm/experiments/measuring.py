"""Answers that are measured: how likely the base model finds them, how far from it they are, how much they repeat."""

import math
import statistics
from collections.abc import Iterable, Sequence

from fastapi import Request

from millm.engine.messages import Generate, Judge, Judged
from millm.experiments.told import Means, Point
from millm.openai.job import Job
from millm.openai.pieces import Piece, joined
from millm.openai.telling import pieces_of
from millm.state import State
from millm.text.repetition import repetition


async def points(state: State, request: Request, job: Job, scale: float | None) -> list[Point]:
    """One for each of the job's sequences. Raises MillmError; leaving it cancels what it asked for."""
    answers = await joined(await pieces_of(state.engine, job, request), len(job.sequences))
    texts = [_to_judge(state, sequence, answer) for sequence, answer in zip(job.sequences, answers, strict=True)]
    judged = {text.id: text for text in await state.engine.judge(*(text for text in texts if text.answer))}
    return [
        _point(scale, sequence, answer, judged.get(text.id))
        for sequence, answer, text in zip(job.sequences, answers, texts, strict=True)
    ]


def means(scale: float | None, found: Sequence[Point]) -> Means:
    """Over the seeds; perplexities are averaged as the logarithms that they are."""
    nll = mean(point.nll for point in found)
    return Means(
        scale=scale,
        answers=len(found),
        tokens=statistics.fmean(point.tokens for point in found),
        perplexity=None if nll is None else perplexity(nll),
        kl=mean(point.kl for point in found),
        repetition=statistics.fmean(point.repetition for point in found),
    )


def perplexity(nll: float) -> float:
    """e to the mean −ln p; one that is beyond all numbers is as large as a number can be."""
    return math.exp(min(nll, 700.0))


def mean(values: Iterable[float | None]) -> float | None:
    """Of those that there are; None: of nothing."""
    there = [value for value in values if value is not None]
    return statistics.fmean(there) if there else None


def _to_judge(state: State, sequence: Generate, answer: Piece) -> Judge:
    return Judge(
        id=f"{sequence.id}-judged",
        prompt=sequence.prompt,
        answer=tuple(token.token for token in answer.tokens),
        steering=sequence.steering,
        deadline_seconds=state.settings.request_timeout,
        model=sequence.model,
    )


def _point(scale: float | None, sequence: Generate, answer: Piece, judged: Judged | None) -> Point:
    assert answer.end
    assert sequence.sampling.seed is not None
    return Point(
        scale=scale,
        seed=sequence.sampling.seed,
        text=answer.text,
        tokens=answer.end.tokens,
        nll=judged.nll if judged else None,
        perplexity=perplexity(judged.nll) if judged else None,
        kl=0.0 if scale == 0 else judged.kl if judged else None,
        repetition=repetition(answer.text),
        finish_reason=answer.end.reason,
    )
