"""Builds the generation requests of an experiment, runs them, and measures the answers.

Measured are perplexity and KL divergence under the base model, and repetition, a sign of incoherence.
"""

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from fastapi import Request
from msgspec.structs import replace as with_fields

from millm.engine.messages import AnswerScored, Generate, ScoreAnswer
from millm.errors import InvalidSteering
from millm.experiments.schemas import ExperimentRequest, MeasuredAnswer, ScaleMeans
from millm.generation.chat import prepare_chat
from millm.generation.completion import prepare_completion
from millm.generation.output import OutputDelta, collect_choices, start_generation
from millm.generation.request import GenerationRequest, resolve_selection
from millm.generation.tools import ToolConfig
from millm.lifecycle.restore import ensure_loaded
from millm.lifecycle.selection import Selection
from millm.profiles.resolve import bind_profile
from millm.profiles.schema import SteeringRequest
from millm.protocol.request import ChatMessage, ChatRequest, CompletionRequest
from millm.sae.steering import Steering
from millm.state import State

JOB_ID_PREFIX = "exp-"


@dataclass(frozen=True)
class ResolvedExperiment:
    body: ExperimentRequest
    """With `model` set."""
    selection: Selection
    steering: Steering
    request: SteeringRequest
    """The source of `steering`, with the names of attached SAEs."""


async def resolve_experiment(state: State, body: ExperimentRequest) -> ResolvedExperiment:
    """Raises InvalidSteering without a steering, and what `resolve_selection` raises."""
    named = body.model_copy(update={"model": body.model or state.model_or_raise().name})
    await ensure_loaded(state, named.model)
    selection = resolve_selection(state, named, None)
    if selection.steering is None:
        raise InvalidSteering(
            selection.degraded or "nothing steers here: name a `profile`, give a `steering`, or make one active first",
            param="steering",
        )
    return ResolvedExperiment(named, selection, selection.steering, _steering_request(state, named, selection))


async def base_job(state: State, experiment: ResolvedExperiment) -> GenerationRequest:
    """The unsteered generation request. Raises what a chat or completion raises."""
    return await _build_job(state, experiment.body, steering=None)


async def system_prompt_job(state: State, experiment: ResolvedExperiment, system_prompt: str) -> GenerationRequest:
    """The unsteered generation request with a system prompt, before the existing one if any."""
    first, rest = experiment.body.messages[0], experiment.body.messages[1:]
    if first.role not in ("system", "developer"):
        first, rest = ChatMessage(role="system"), experiment.body.messages
    content = [{"type": "text", "text": system_prompt}, *(first.content or [])]
    messages = [first.model_copy(update={"content": content}), *rest]
    return await _build_job(state, experiment.body, steering=None, messages=messages)


def steered_job(
    job: GenerationRequest, experiment: ResolvedExperiment, steering: Steering | None, seeds: list[int], name: str
) -> GenerationRequest:
    """`job` with one sequence per seed, steered by `steering`."""
    (first,) = job.sequences
    sequences = tuple(
        with_fields(
            first,
            id=f"{job.id}-{name}-{number}",
            steering=steering,
            follows_active=False,
            sampling=with_fields(first.sampling, seed=seed),
        )
        for number, seed in enumerate(seeds)
    )
    return replace(job, selection=experiment.selection, sequences=sequences)


def _steering_request(state: State, body: ExperimentRequest, selection: Selection) -> SteeringRequest:
    if body.steering_given:
        assert body.steering
        return body.steering
    if selection.follows_active:
        assert state.active
        return state.active.effective_request
    assert selection.profile
    return bind_profile(state.saes, state.profiles.find(selection.profile))


async def _build_job(state: State, body: ExperimentRequest, **changes: Any) -> GenerationRequest:
    if body.prompt is not None:
        completion = CompletionRequest.model_construct(**_shared_fields(body, CompletionRequest), **changes)
        return await prepare_completion(
            state, completion.model_copy(update={"prompt": [body.prompt]}), None, prefix=JOB_ID_PREFIX
        )
    chat = ChatRequest.model_construct(**{**_shared_fields(body, ChatRequest), **changes})
    return await prepare_chat(state, chat, ToolConfig(), None, prefix=JOB_ID_PREFIX)


def _shared_fields(
    body: ExperimentRequest, request_type: type[ChatRequest] | type[CompletionRequest]
) -> dict[str, Any]:
    """The fields that `body` shares with the request type, without those that are None."""
    fields = (type(body).model_fields.keys() & request_type.model_fields.keys()) - {"steering", "profile"}
    return {name: getattr(body, name) for name in fields if getattr(body, name) is not None}


def repeated_trigram_share(text: str) -> float:
    """Share (0 to 1) of the 3-word sequences that repeat an earlier one; words are separated by white space."""
    words = text.lower().split()
    triples = [tuple(words[start : start + 3]) for start in range(len(words) - 2)]
    return 1 - len(set(triples)) / len(triples) if triples else 0.0


async def measure_answers(
    state: State, request: Request, job: GenerationRequest, scale: float | None
) -> list[MeasuredAnswer]:
    """One measured answer per sequence of `job`. Raises MillmError; cancelling it aborts the sequences."""
    answers = await collect_choices(await start_generation(state.engine, job, request), len(job.sequences))
    commands = [_score_command(state, *pair) for pair in zip(job.sequences, answers, strict=True)]
    scored = await state.engine.score_answers(*(command for command in commands if command.answer))
    scores = {score.id: score for score in scored}
    return [
        _measured_answer(scale, sequence, answer, scores.get(command.id))
        for sequence, answer, command in zip(job.sequences, answers, commands, strict=True)
    ]


def average_answers(scale: float | None, answers: Sequence[MeasuredAnswer]) -> ScaleMeans:
    """Means over the seeds; perplexities are averaged in log space."""
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
    """exp of the mean −ln p, capped below overflow."""
    return math.exp(min(nll, 700.0))


def mean_of_known(values: Iterable[float | None]) -> float | None:
    """The mean of the values that are not None; None without any."""
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if known else None


def _score_command(state: State, sequence: Generate, answer: OutputDelta) -> ScoreAnswer:
    return ScoreAnswer(
        id=f"{sequence.id}-judged",
        prompt=sequence.prompt,
        answer=tuple(token.token for token in answer.tokens),
        steering=sequence.steering,
        deadline_seconds=state.settings.request_timeout,
        model=sequence.model,
    )


def _measured_answer(
    scale: float | None, sequence: Generate, answer: OutputDelta, score: AnswerScored | None
) -> MeasuredAnswer:
    assert answer.end
    assert sequence.sampling.seed is not None
    return MeasuredAnswer(
        scale=scale,
        seed=sequence.sampling.seed,
        text=answer.text,
        tokens=answer.end.tokens,
        nll=score.nll if score else None,
        perplexity=perplexity(score.nll) if score else None,
        kl=0.0 if scale == 0 else score.kl if score else None,
        repetition=repeated_trigram_share(answer.text),
        finish_reason=answer.end.reason,
    )
