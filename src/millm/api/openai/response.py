"""Responses of chats and completions, streamed or full: choices, logprobs, usage and `millm`, from the same deltas."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Protocol

import msgspec
from fastapi import Request, Response
from msgspec import UNSET, UnsetType

from millm.api.sse import cancel_on_disconnect, stream_events
from millm.engine.client import EngineClient
from millm.engine.messages import Token
from millm.generation.output import (
    ChoiceEnd,
    OutputDelta,
    OutputStream,
    ToolCallPart,
    collect_choices,
    pick_best,
    response_extension,
    start_generation,
)
from millm.generation.request import GenerationRequest
from millm.protocol import response as schema
from millm.text.tokenizer import Tokenizer

MIN_LOGPROB = -9999.0
"""Replaces the logarithm of zero, which JSON cannot represent."""


def chat_logprobs(tokenizer: Tokenizer, tokens: Sequence[Token]) -> schema.ChatLogprobs:
    return schema.ChatLogprobs(content=tuple(_token_logprob(tokenizer, token) for token in tokens))


def completion_logprobs(tokenizer: Tokenizer, output: OutputDelta) -> schema.CompletionLogprobs:
    return schema.CompletionLogprobs(
        tokens=tuple(tokenizer.token_text(token.token) for token in output.tokens),
        token_logprobs=tuple(None if token.logprob is None else _finite(token.logprob) for token in output.tokens),
        top_logprobs=tuple(_top_logprobs_by_text(tokenizer, token) for token in output.tokens),
        text_offset=output.offsets,
    )


def _top_logprobs_by_text(tokenizer: Tokenizer, token: Token) -> dict[str, float] | None:
    """Log-probabilities by token text, the chosen token included; None for a prompt's first token."""
    if token.logprob is None:
        return None
    chosen = [(token.token, token.logprob)] if token.top else []
    by_text: dict[str, float] = {}
    for id, logprob in (*token.top, *chosen):  # likeliest first: the likelier of two tokens with one text stays
        by_text.setdefault(tokenizer.token_text(id), _finite(logprob))
    return by_text


def _token_logprob(tokenizer: Tokenizer, token: Token) -> schema.TokenLogprob:
    return schema.TokenLogprob(
        token=tokenizer.token_text(token.token),
        logprob=_finite(token.logprob),
        bytes=tuple(tokenizer.token_bytes(token.token)),
        top_logprobs=tuple(_top_logprob(tokenizer, id, logprob) for id, logprob in token.top),
    )


def _top_logprob(tokenizer: Tokenizer, id: int, logprob: float) -> schema.TopLogprob:
    return schema.TopLogprob(
        token=tokenizer.token_text(id), logprob=_finite(logprob), bytes=tuple(tokenizer.token_bytes(id))
    )


def _finite(logprob: float | None) -> float:
    return max(logprob, MIN_LOGPROB) if logprob is not None else MIN_LOGPROB


class ChoiceBuilder(Protocol):
    """Builds the choices of one endpoint, full or in chunks."""

    response_object: schema.ObjectName
    chunk_object: schema.ObjectName

    def opening_chunk(self, choice: int) -> schema.Choice | None:
        """The first chunk of a choice in a stream."""

    def chunks(self, output: OutputDelta) -> Sequence[schema.Choice]:
        """One delta as one chunk or several."""

    def closing_chunk(self, choice: int, reason: schema.FinishReason) -> schema.Choice:
        """The last chunk of a choice in a stream."""

    def full_choice(self, output: OutputDelta, reason: schema.FinishReason) -> schema.Choice:
        """A choice of a full response."""


class ChatChoiceBuilder:
    response_object: schema.ObjectName = "chat.completion"
    chunk_object: schema.ObjectName = "chat.completion.chunk"

    def __init__(self, tokenizer: Tokenizer, *, logprobs: bool, calls_only: bool = False) -> None:
        self._tokenizer = tokenizer
        self._wants_logprobs = logprobs
        self._calls_only = calls_only

    def opening_chunk(self, choice: int) -> schema.ChatChunkChoice:
        return schema.ChatChunkChoice(
            index=choice, delta=schema.DeltaMessage(role="assistant", content=None if self._calls_only else "")
        )

    def chunks(self, output: OutputDelta) -> list[schema.ChatChunkChoice]:
        """Separate chunks for reasoning, text and each part of a call; the first carries all logprobs.

        Empty for a delta without content, such as the last bracket of a forced call.
        """
        deltas = [schema.DeltaMessage(reasoning_content=output.reasoning)] if output.reasoning else []
        deltas += [schema.DeltaMessage(content=output.text)] if output.text else []
        deltas += [schema.DeltaMessage(tool_calls=(_call_delta(part),)) for part in output.calls]
        if not deltas and (self._wants_logprobs or output.activations):
            deltas = [schema.DeltaMessage() if self._calls_only else schema.DeltaMessage(content="")]
        logprobs = self._logprobs(output)
        return [
            schema.ChatChunkChoice(index=output.choice, delta=delta, logprobs=None if number else logprobs)
            for number, delta in enumerate(deltas)
        ]

    def closing_chunk(self, choice: int, reason: schema.FinishReason) -> schema.ChatChunkChoice:
        return schema.ChatChunkChoice(index=choice, delta=schema.DeltaMessage(), finish_reason=reason)

    def full_choice(self, output: OutputDelta, reason: schema.FinishReason) -> schema.ChatChoice:
        return schema.ChatChoice(
            index=output.choice,
            message=schema.AssistantMessage(
                content=None if output.calls and not output.text else output.text,
                reasoning_content=output.reasoning or UNSET,
                tool_calls=_joined_calls(output.calls) or UNSET,
            ),
            logprobs=self._logprobs(output),
            finish_reason=reason,
        )

    def _logprobs(self, output: OutputDelta) -> schema.ChatLogprobs | None:
        return chat_logprobs(self._tokenizer, output.tokens) if self._wants_logprobs else None


def _call_delta(part: ToolCallPart) -> schema.ToolCallDelta:
    if part.id is None or part.name is None:
        return schema.ToolCallDelta(index=part.index, function=schema.FunctionCall(arguments=part.arguments))
    function = schema.FunctionCall(name=part.name, arguments=part.arguments)
    return schema.ToolCallDelta(index=part.index, id=part.id, type="function", function=function)


def _joined_calls(parts: Sequence[ToolCallPart]) -> tuple[schema.AssistantToolCall, ...]:
    return tuple(
        schema.AssistantToolCall(
            id=first.id,
            function=schema.FunctionCall(
                name=first.name, arguments="".join(part.arguments for part in parts if part.index == first.index)
            ),
        )
        for first in parts
        if first.id is not None and first.name is not None
    )


class CompletionChoiceBuilder:
    response_object: schema.ObjectName = "text_completion"
    chunk_object: schema.ObjectName = "text_completion"

    def __init__(self, tokenizer: Tokenizer, *, logprobs: bool) -> None:
        self._tokenizer = tokenizer
        self._wants_logprobs = logprobs

    def opening_chunk(self, choice: int) -> None:
        """None: a completion starts with its first text."""

    def chunks(self, output: OutputDelta) -> list[schema.CompletionChoice]:
        return [schema.CompletionChoice(index=output.choice, text=output.text, logprobs=self._logprobs(output))]

    def closing_chunk(self, choice: int, reason: schema.FinishReason) -> schema.CompletionChoice:
        return schema.CompletionChoice(index=choice, text="", finish_reason=reason)

    def full_choice(self, output: OutputDelta, reason: schema.FinishReason) -> schema.CompletionChoice:
        return schema.CompletionChoice(
            index=output.choice, text=output.text, logprobs=self._logprobs(output), finish_reason=reason
        )

    def _logprobs(self, output: OutputDelta) -> schema.CompletionLogprobs | None:
        return completion_logprobs(self._tokenizer, output) if self._wants_logprobs else None


async def create_response(
    request: Request, engine: EngineClient, generation: GenerationRequest, builder: ChoiceBuilder, *, streaming: bool
) -> Response:
    """Raises MillmError before anything is sent; ClientDisconnect."""
    outputs = await start_generation(engine, generation, request)
    if streaming:
        return await stream_events(request, _chunks(generation, builder, outputs))
    response = await cancel_on_disconnect(request, _full_response(generation, builder, outputs))
    return Response(msgspec.json.encode(response), media_type="application/json")


async def _chunks(
    generation: GenerationRequest, builder: ChoiceBuilder, outputs: OutputStream
) -> AsyncGenerator[schema.CompletionResponse]:
    opened: set[int] = set()
    ends: list[ChoiceEnd] = []
    async with aclosing(outputs):
        async for output in outputs:
            opening = builder.opening_chunk(output.choice) if output.choice not in opened else None
            opened.add(output.choice)
            if opening:
                yield _chunk_response(generation, builder, opening)
            for chunk in _output_chunks(generation, builder, output):
                yield chunk
            if output.end:
                ends.append(output.end)
    if generation.include_usage:
        yield _completion_response(generation, builder.chunk_object, (), usage=_usage(generation, ends))


def _output_chunks(
    generation: GenerationRequest, builder: ChoiceBuilder, output: OutputDelta
) -> list[schema.CompletionResponse]:
    """Chunks for the content, and one for the end."""
    chunks: list[schema.CompletionResponse] = []
    if output.has_content:
        activations = (
            schema.Extension(activations=output.activations, sample_every=generation.sample_every)
            if output.activations
            else UNSET
        )
        chunks += [
            _chunk_response(generation, builder, part, UNSET if number else activations)
            for number, part in enumerate(builder.chunks(output))
        ]
    if output.end:
        receipt = response_extension(generation, [output], watching=False)
        chunks.append(
            _chunk_response(generation, builder, builder.closing_chunk(output.choice, output.end.reason), receipt)
        )
    return chunks


async def _full_response(
    generation: GenerationRequest, builder: ChoiceBuilder, outputs: OutputStream
) -> schema.CompletionResponse:
    choices = await collect_choices(outputs, len(generation.sequences))
    best = pick_best(choices, generation.samples_per_prompt, generation.choices_per_prompt)
    return _completion_response(
        generation,
        builder.response_object,
        [builder.full_choice(choice, choice.end.reason) for choice in best if choice.end],
        usage=_usage(generation, [choice.end for choice in choices if choice.end]),
        extension=response_extension(generation, best, watching=bool(generation.watching.request_watches)),
    )


def _chunk_response(
    generation: GenerationRequest,
    builder: ChoiceBuilder,
    choice: schema.Choice,
    extension: schema.Extension | UnsetType = UNSET,
) -> schema.CompletionResponse:
    usage = None if generation.include_usage else UNSET
    return _completion_response(generation, builder.chunk_object, [choice], usage=usage, extension=extension)


def _completion_response(
    generation: GenerationRequest,
    object_name: schema.ObjectName,
    choices: Sequence[schema.Choice],
    *,
    usage: schema.Usage | UnsetType | None,
    extension: schema.Extension | UnsetType = UNSET,
) -> schema.CompletionResponse:
    return schema.CompletionResponse(
        id=generation.id,
        object=object_name,
        created=generation.created,
        model=generation.requested_model,
        system_fingerprint=generation.system_fingerprint,
        choices=tuple(choices),
        usage=usage,
        millm=extension,
    )


def _usage(generation: GenerationRequest, ends: Sequence[ChoiceEnd]) -> schema.Usage:
    """Every prompt and its cached tokens count once, however many choices it has."""
    completion = sum(end.tokens for end in ends)
    cached = min(sum(end.cached_tokens for end in ends), generation.prompt_tokens)
    return schema.Usage(
        prompt_tokens=generation.prompt_tokens,
        completion_tokens=completion,
        total_tokens=generation.prompt_tokens + completion,
        prompt_tokens_details=schema.PromptDetails(cached_tokens=cached),
    )
