"""An experiment's question as the jobs of the ordinary endpoints, and the steering that it is about."""

from dataclasses import dataclass, replace
from typing import Any

from msgspec.structs import replace as with_fields

from millm.errors import InvalidSteering
from millm.experiments.bodies import Experiment
from millm.lifecycle.on_demand import ready_for
from millm.openai.chat_job import chat_job
from millm.openai.completion_job import completion_job
from millm.openai.job import Job, choose
from millm.openai.schemas.chat import ChatMessage, ChatRequest
from millm.openai.schemas.completions import CompletionRequest
from millm.openai.tools import Tooling
from millm.profiles.active import heard
from millm.profiles.binding import bind
from millm.profiles.contract import SteeringRequest
from millm.profiles.selection import Selection
from millm.sae.steering import Steering
from millm.state import State

PREFIX = "exp-"


@dataclass(frozen=True)
class Question:
    """The body, resolved: the model is named, and there is something that steers."""

    body: Experiment
    selection: Selection
    steering: Steering
    asked: SteeringRequest
    """`steering` as it was written, with the names of attached SAEs."""


async def question(state: State, body: Experiment) -> Question:
    """Raises InvalidSteering where nothing steers, and what `choose` raises."""
    named = body.model_copy(update={"model": body.model or state.model_or_raise().name})
    await ready_for(state, named.model)
    selection = choose(state, named, None)
    if selection.steering is None:
        raise InvalidSteering(
            selection.degraded or "nothing steers here: name a `profile`, give a `steering`, or make one active first",
            param="steering",
        )
    return Question(named, selection, selection.steering, _asked(state, named, selection))


async def base_job(state: State, about: Question) -> Job:
    """Of the base model. Raises what the job of a chat or a completion raises."""
    return await _job(state, about.body, steering=None)


async def system_prompt_job(state: State, about: Question, system_prompt: str) -> Job:
    """Of the base model, asked by a system prompt instead: in front of the one that is there, if there is one."""
    first, rest = about.body.messages[0], about.body.messages[1:]
    if first.role not in ("system", "developer"):
        first, rest = ChatMessage(role="system"), about.body.messages
    content = [{"type": "text", "text": system_prompt}, *(first.content or [])]
    messages = [first.model_copy(update={"content": content}), *rest]
    return await _job(state, about.body, steering=None, messages=messages)


def steered(job: Job, about: Question, steering: Steering | None, seeds: list[int], name: str) -> Job:
    """The same question once for each seed, with this steering."""
    (first,) = job.sequences
    sequences = tuple(
        with_fields(
            first,
            id=f"{job.id}-{name}-{place}",
            steering=steering,
            follows_active=False,
            sampling=with_fields(first.sampling, seed=seed),
        )
        for place, seed in enumerate(seeds)
    )
    return replace(job, selection=about.selection, sequences=sequences)


def _asked(state: State, body: Experiment, selection: Selection) -> SteeringRequest:
    if body.steering_given:
        assert body.steering
        return body.steering
    if selection.follows_active:
        assert state.active
        rack = state.active
        return heard(rack.asked, rack.muted, rack.solo, on=rack.on)
    assert selection.profile
    return bind(state.saes, state.profiles.find(selection.profile))


async def _job(state: State, body: Experiment, **changes: Any) -> Job:
    if body.prompt is not None:
        completion = CompletionRequest.model_construct(**_shared(body, CompletionRequest), **changes)
        return await completion_job(state, completion.model_copy(update={"prompt": [body.prompt]}), None, prefix=PREFIX)
    chat = ChatRequest.model_construct(**{**_shared(body, ChatRequest), **changes})
    return await chat_job(state, chat, Tooling(), None, prefix=PREFIX)


def _shared(body: Experiment, kind: type[ChatRequest] | type[CompletionRequest]) -> dict[str, Any]:
    """What was validated already, as the fields of that request; the profile is told by its steering."""
    fields = (type(body).model_fields.keys() & kind.model_fields.keys()) - {"steering", "profile"}
    return {name: getattr(body, name) for name in fields if getattr(body, name) is not None}
