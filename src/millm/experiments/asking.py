"""An experiment's question as the jobs of the ordinary endpoints, and the steering that it is about."""

from dataclasses import dataclass, replace
from typing import Any

from msgspec.structs import replace as with_fields

from millm.errors import InvalidSteering
from millm.experiments.bodies import ExperimentRequest
from millm.generation.chat import prepare_chat
from millm.generation.completion import prepare_completion
from millm.generation.request import GenerationRequest, resolve_selection
from millm.generation.tools import ToolConfig
from millm.lifecycle.restore import ensure_loaded
from millm.lifecycle.selection import Selection
from millm.profiles.active import effective_request
from millm.profiles.resolve import bind_profile
from millm.profiles.schema import SteeringRequest
from millm.protocol.request import ChatMessage, ChatRequest, CompletionRequest
from millm.sae.steering import Steering
from millm.state import State

JOB_ID_PREFIX = "exp-"


@dataclass(frozen=True)
class ResolvedExperiment:
    """The body, resolved: the model is named, and there is something that steers."""

    body: ExperimentRequest
    selection: Selection
    steering: Steering
    request: SteeringRequest
    """`steering` as it was written, with the names of attached SAEs."""


async def resolve_experiment(state: State, body: ExperimentRequest) -> ResolvedExperiment:
    """Raises InvalidSteering where nothing steers, and what `choose` raises."""
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
    """Of the base model. Raises what the job of a chat or a completion raises."""
    return await _build_job(state, experiment.body, steering=None)


async def system_prompt_job(state: State, experiment: ResolvedExperiment, system_prompt: str) -> GenerationRequest:
    """Of the base model, asked by a system prompt instead: in front of the one that is there, if there is one."""
    first, rest = experiment.body.messages[0], experiment.body.messages[1:]
    if first.role not in ("system", "developer"):
        first, rest = ChatMessage(role="system"), experiment.body.messages
    content = [{"type": "text", "text": system_prompt}, *(first.content or [])]
    messages = [first.model_copy(update={"content": content}), *rest]
    return await _build_job(state, experiment.body, steering=None, messages=messages)


def steered_job(
    job: GenerationRequest, experiment: ResolvedExperiment, steering: Steering | None, seeds: list[int], name: str
) -> GenerationRequest:
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
    return replace(job, selection=experiment.selection, sequences=sequences)


def _steering_request(state: State, body: ExperimentRequest, selection: Selection) -> SteeringRequest:
    if body.steering_given:
        assert body.steering
        return body.steering
    if selection.follows_active:
        assert state.active
        rack = state.active
        return effective_request(rack.request, rack.muted, rack.solo, on=rack.on)
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
    """What was validated already, as the fields of that request; the profile is told by its steering."""
    fields = (type(body).model_fields.keys() & request_type.model_fields.keys()) - {"steering", "profile"}
    return {name: getattr(body, name) for name in fields if getattr(body, name) is not None}
