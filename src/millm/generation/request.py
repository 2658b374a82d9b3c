"""Resolves a parsed body into a `GenerationRequest`: every check and decision before the engine starts.

Independent of the endpoint. Includes the output parser to use and the activations to watch.
"""

import hashlib
import time
import uuid
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass
from typing import Annotated
from urllib.parse import unquote

from fastapi import Header
from msgspec import UNSET, UnsetType

import millm
from millm.engine.messages import Generate, ModelFacts
from millm.errors import ContextLengthExceeded, InvalidRequest, InvalidSteering, MillmError, ModelCannotGenerate
from millm.events import RequestRecord
from millm.generation.tools import ToolConfig
from millm.lifecycle.selection import Selection, resolve_watches, select
from millm.loaded import LoadedModel
from millm.monitoring.watch import WatchPlan
from millm.profiles.resolve import watched_features
from millm.profiles.schema import ActivationsRequest
from millm.protocol.request import ChatRequest, CompletionRequest, GenerationFields
from millm.protocol.response import FinishReason
from millm.state import State
from millm.text.tool_calls import (
    CLOSE_TAG,
    OPEN_TAG,
    DeltaParser,
    ForcedArgumentsParser,
    ForcedCallsParser,
    PlainTextParser,
    TaggedCallsParser,
)


@dataclass(frozen=True)
class OutputParserConfig:
    """How to parse the output; every choice gets its own parser."""

    make_parser: Callable[[], DeltaParser] = PlainTextParser
    visible_tokens: Container[int] = ()
    """Special tokens that the parser needs."""
    finish_after_calls: FinishReason = "tool_calls"
    """`finish_reason` of an answer with tool calls."""


PLAIN_TEXT = OutputParserConfig()


def parser_config_of(
    model: LoadedModel, tooling: ToolConfig, prompt: str, *, is_constrained: bool
) -> OutputParserConfig:
    """A forced call of a named function ends with "stop", any other with "tool_calls", as at OpenAI."""
    functions, parallel = tooling.functions, tooling.parallel_calls
    names = frozenset(function.name for function in functions)
    if tooling.choice == "named":
        return OutputParserConfig(lambda: ForcedArgumentsParser(functions[0].name), finish_after_calls="stop")
    if tooling.choice == "required":
        return OutputParserConfig(lambda: ForcedCallsParser(names))
    if is_constrained:
        return PLAIN_TEXT
    if model.response_template:
        template = model.response_template
        visible = model.tokenizer.special_ids_in(template.source_text)
        return OutputParserConfig(lambda: template.create_parser(prompt, functions, parallel=parallel), visible)
    if functions:
        return OutputParserConfig(
            lambda: TaggedCallsParser(names, parallel=parallel), model.tokenizer.special_ids_in(OPEN_TAG + CLOSE_TAG)
        )
    return PLAIN_TEXT


def resolve_watching(state: State, requested: Sequence[ActivationsRequest]) -> WatchPlan:
    """Raises InvalidSteering or SaeDetached for the request's own `activations`, never for the monitor's watches."""
    own = [watch for item in requested for watch in resolve_watches(state, item)]
    names = [watch.sae for watch in own]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise InvalidSteering(f"activations: SAE {twice!r} is named twice; merge the two", param="activations")
    facts = {name: attached.facts for name, attached in state.saes.items()}
    return state.monitor.plan_watches(own, facts, _profile_features(state))


def _profile_features(state: State) -> dict[str, tuple[int, ...]]:
    """Watched features of the active profile by SAE; empty when the profile is missing or incompatible."""
    config = state.monitor.config
    if not (config.on and config.follow_profile and state.active and state.active.profile):
        return {}
    try:
        return watched_features(state.saes, state.profiles.find(state.active.profile))
    except MillmError:
        return {}


ProfileHeader = Annotated[
    str | None, Header(description="For clients that can only set headers; percent-encoded where it is not ASCII.")
]
"""`X-Millm-Profile`"""


@dataclass(frozen=True)
class GenerationRequest:
    """A fully resolved request: one sequence per choice, and the metadata of the response."""

    id: str
    created: int
    requested_model: str
    system_fingerprint: str
    selection: Selection
    sequences: tuple[Generate, ...]
    """All choices of the first prompt, then of the second, …"""
    stop: tuple[str, ...]
    continues_prompt: bool
    """The answer continues the prompt's text, e.g. without stripping a leading space."""
    echoes: tuple[str, ...]
    """With `echo`: the prompt of each choice."""
    samples_per_prompt: int
    """Sequences for each prompt."""
    choices_per_prompt: int
    """Returned choices per prompt: the likeliest samples."""
    prompt_tokens: int
    include_usage: bool
    is_streamed: bool
    watching: WatchPlan
    parser_config: OutputParserConfig = PLAIN_TEXT
    tools_omitted: bool = False
    last_prompt_text: str = ""
    """The last message, or the first prompt; identifies background tasks of chat clients."""

    @property
    def sample_every(self) -> int | UnsetType:
        """Sampling interval of `top_k`, where requested."""
        return next((watch.sample_every for watch in self.watching.request_watches if watch.sample_every), UNSET)

    def new_record(self, endpoint: str, client: str, task: str | None) -> RequestRecord:
        return RequestRecord(
            id=self.id,
            endpoint=endpoint,
            model=self.selection.model.name,
            profile=self.selection.profile,
            client=client,
            task=task,
            began=time.time(),
            streamed=self.is_streamed,
            choices=len(self.sequences),
            prompt_tokens=self.prompt_tokens,
        )

    def decode_prompts(self) -> tuple[str, ...]:
        """The different prompts as the model reads them, with special tokens."""
        decode = self.selection.model.tokenizer.decode
        return tuple(
            decode(sequence.prompt, skip_special=False) for sequence in self.sequences[:: self.samples_per_prompt]
        )


def resolve_selection(state: State, body: GenerationFields, header_profile: str | None) -> Selection:
    """Select model, profile and steering; the body's profile wins over the header's.

    Raises what `select` raises, and QueueFull before the prompt is tokenized.
    """
    selection = select(
        state,
        model=body.model,
        profile=body.profile or unquote(header_profile or "") or None,
        steering=body.steering,
        steering_given=body.steering_given,
    )
    if not selection.model.facts.generates:
        raise ModelCannotGenerate(
            f"The model `{selection.model.name}` only embeds: use /v1/embeddings, or serve a model that generates.",
            param="model",
        )
    state.engine.check_capacity()
    return selection


def build_request(
    state: State,
    selection: Selection,
    body: ChatRequest | CompletionRequest,
    prompts: Sequence[Sequence[int]],
    *,
    prefix: str,
    stop: Sequence[str],
    continues_prompt: bool = False,
    grammar: str | None = None,
    parser_config: OutputParserConfig = PLAIN_TEXT,
    tools_omitted: bool = False,
    echoes: Sequence[str] = (),
    last_prompt_text: str = "",
) -> GenerationRequest:
    """Raises InvalidRequest, ContextLengthExceeded, InvalidSteering or SaeDetached."""
    _check_body(body, len(prompts) * body.samples_per_prompt, state.engine.capacity, selection.model.facts)
    request_id = f"{prefix}{uuid.uuid4().hex}"
    watching = resolve_watching(state, body.activations or ())
    return GenerationRequest(
        id=request_id,
        created=int(time.time()),
        requested_model=body.model,
        system_fingerprint=_fingerprint(selection.model),
        selection=selection,
        sequences=_sequences(state, selection, body, prompts, request_id, grammar, watching),
        stop=tuple(stop),
        continues_prompt=continues_prompt,
        echoes=tuple(echo for echo in echoes for _ in range(body.samples_per_prompt)),
        samples_per_prompt=body.samples_per_prompt,
        choices_per_prompt=body.n,
        prompt_tokens=sum(len(prompt) for prompt in prompts),
        include_usage=body.stream_options.include_usage,
        watching=watching,
        is_streamed=body.stream,
        parser_config=parser_config,
        tools_omitted=tools_omitted,
        last_prompt_text=last_prompt_text,
    )


def _sequences(
    state: State,
    selection: Selection,
    body: ChatRequest | CompletionRequest,
    prompts: Sequence[Sequence[int]],
    request_id: str,
    grammar: str | None,
    watching: WatchPlan,
) -> tuple[Generate, ...]:
    facts = selection.model.facts
    limit = state.settings.default_max_tokens if body.token_limit is None else body.token_limit
    return tuple(
        Generate(
            id=f"{request_id}-{number}-{k}",
            prompt=tuple(prompt),
            max_tokens=min(limit, _max_answer_tokens(facts, len(prompt), limit)),
            sampling=body.sampling(k, body.num_logprobs),
            stop_ids=(*(() if body.ignore_eos else facts.stop_ids), *body.stop_token_ids),
            steering=selection.steering,
            watch=watching.engine_watches,
            follows_active=selection.follows_active,
            deadline_seconds=state.settings.request_timeout,
            grammar=grammar,
            prompt_logprobs=body.num_prompt_logprobs,
            model=facts.id,
        )
        for number, prompt in enumerate(prompts)
        for k in range(body.samples_per_prompt)
    )


def _check_body(body: ChatRequest | CompletionRequest, choice_count: int, capacity: int, facts: ModelFacts) -> None:
    if choice_count > capacity:
        raise InvalidRequest(
            f"`n` × prompts requests {choice_count} answers; the limit is {capacity} at once.", param="n"
        )
    for name, ids in (("logit_bias", map(int, body.logit_bias)), ("stop_token_ids", body.stop_token_ids)):
        if any(id >= facts.vocab_size for id in ids):
            raise InvalidRequest(f"`{name}` accepts token ids from 0 to {facts.vocab_size - 1}.", param=name)
    if body.token_limit is not None and body.min_tokens > body.token_limit:
        raise InvalidRequest(
            f"`min_tokens` should be at most the answer's limit, {body.token_limit}.", param="min_tokens"
        )


def _max_answer_tokens(facts: ModelFacts, prompt_tokens: int, limit: int) -> int:
    """Tokens left for the answer. Raises ContextLengthExceeded where none is."""
    if prompt_tokens + min(limit, 1) > facts.context_length:
        raise ContextLengthExceeded(
            f"This model's maximum context length is {facts.context_length} tokens, and the request has "
            f"{prompt_tokens}; shorten it to leave room for an answer."
        )
    return facts.context_length - prompt_tokens


def _fingerprint(model: LoadedModel) -> str:
    """`system_fingerprint`: equal where the same request and seed should give the same answer."""
    running = (millm.__version__, model.name, model.facts.device, model.facts.dtype, model.facts.runner)
    return f"fp_{hashlib.sha256(repr(running).encode()).hexdigest()[:12]}"
