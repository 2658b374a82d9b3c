"""Answers that are measured: how likely the base model finds them, how far from it they are, how much they repeat."""

import math
import statistics
from collections.abc import Iterable, Sequence

from fastapi import Request

from millm.engine.messages import AnswerScored, Generate, ScoreAnswer
from millm.experiments.told import MeasuredAnswer, ScaleMeans
from millm.generation.output import OutputDelta, collect_choices, start_generation
from millm.generation.request import GenerationRequest
from millm.state import State
from millm.text.repetition import repeated_trigram_share


async def measure_answers(
    state: State, request: Request, job: GenerationRequest, scale: float | None
) -> list[MeasuredAnswer]:
    """One for each of the job's sequences. Raises MillmError; leaving it cancels what it asked for."""
    answers = await collect_choices(await start_generation(state.engine, job, request), len(job.sequences))
    texts = [_judge_command(state, sequence, answer) for sequence, answer in zip(job.sequences, answers, strict=True)]
    judged = {text.id: text for text in await state.engine.score_answers(*(text for text in texts if text.answer))}
    return [
        _measured_answer(scale, sequence, answer, judged.get(text.id))
        for sequence, answer, text in zip(job.sequences, answers, texts, strict=True)
    ]


def average_answers(scale: float | None, answers: Sequence[MeasuredAnswer]) -> ScaleMeans:
    """Over the seeds; perplexities are averaged as the logarithms that they are."""
    nll = mean_of_known(point.nll for point in answers)
    return ScaleMeans(
        scale=scale,
        answers=len(answers),
        tokens=statistics.fmean(point.tokens for point in answers),
        perplexity=None if nll is None else perplexity(nll),
        kl=mean_of_known(point.kl for point in answers),
        repetition=statistics.fmean(point.repetition for point in answers),
    )


def perplexity(nll: float) -> float:
    """e to the mean −ln p; one that is beyond all numbers is as large as a number can be."""
    return math.exp(min(nll, 700.0))


def mean_of_known(values: Iterable[float | None]) -> float | None:
    """Of those that there are; None: of nothing."""
    there = [value for value in values if value is not None]
    return statistics.fmean(there) if there else None


def _judge_command(state: State, sequence: Generate, answer: OutputDelta) -> ScoreAnswer:
    return ScoreAnswer(
        id=f"{sequence.id}-judged",
        prompt=sequence.prompt,
        answer=tuple(token.token for token in answer.tokens),
        steering=sequence.steering,
        deadline_seconds=state.settings.request_timeout,
        model=sequence.model,
    )


def _measured_answer(
    scale: float | None, sequence: Generate, answer: OutputDelta, judged: AnswerScored | None
) -> MeasuredAnswer:
    assert answer.end
    assert sequence.sampling.seed is not None
    return MeasuredAnswer(
        scale=scale,
        seed=sequence.sampling.seed,
        text=answer.text,
        tokens=answer.end.tokens,
        nll=judged.nll if judged else None,
        perplexity=perplexity(judged.nll) if judged else None,
        kl=0.0 if scale == 0 else judged.kl if judged else None,
        repetition=repeated_trigram_share(answer.text),
        finish_reason=answer.end.reason,
    )
