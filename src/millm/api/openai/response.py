"""The two shapes a choice can be told in: a chat's message or a completion's text, whole or piece by piece.

`millm` in an answer: the receipt of the steering it got, and the activations that were asked for.

How likely the tokens were, in the two shapes that OpenAI's two endpoints have for it.

A job's answer, streamed or whole: both are made of the same pieces in the same form.
"""

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
    build_extension,
    collect_choices,
    pick_best,
    start_generation,
)
from millm.generation.request import GenerationRequest
from millm.protocol.response import (
    AssistantMessage,
    AssistantToolCall,
    ChatChoice,
    ChatChunkChoice,
    ChatLogprobs,
    Choice,
    CompletionChoice,
    CompletionLogprobs,
    CompletionResponse,
    DeltaMessage,
    Extension,
    FinishReason,
    FunctionCall,
    ObjectName,
    PromptDetails,
    TokenLogprob,
    ToolCallDelta,
    TopLogprob,
    Usage,
)
from millm.text.tokenizer import Tokenizer

MIN_LOGPROB = -9999.0
"""Stands for a probability of zero, whose logarithm is not a JSON number."""


def chat_logprobs(tokenizer: Tokenizer, tokens: Sequence[Token]) -> ChatLogprobs:
    return ChatLogprobs(content=tuple(_token_logprob(tokenizer, token) for token in tokens))


def completion_logprobs(tokenizer: Tokenizer, output: OutputDelta) -> CompletionLogprobs:
    return CompletionLogprobs(
        tokens=tuple(tokenizer.token_text(token.token) for token in output.tokens),
        token_logprobs=tuple(None if token.logprob is None else _finite(token.logprob) for token in output.tokens),
        top_logprobs=tuple(_top_logprobs_by_text(tokenizer, token) for token in output.tokens),
        text_offset=output.offsets,
    )


def _top_logprobs_by_text(tokenizer: Tokenizer, token: Token) -> dict[str, float] | None:
    """By their texts, the token itself among them; of two with one text the likelier. None before any text."""
    if token.logprob is None:
        return None
    chosen = [(token.token, token.logprob)] if token.top else []
    found: dict[str, float] = {}
    for id, logprob in (*token.top, *chosen):
        found.setdefault(tokenizer.token_text(id), _finite(logprob))
    return found


def _token_logprob(tokenizer: Tokenizer, token: Token) -> TokenLogprob:
    return TokenLogprob(
        token=tokenizer.token_text(token.token),
        logprob=_finite(token.logprob),
        bytes=tuple(tokenizer.token_bytes(token.token)),
        top_logprobs=tuple(_top_logprob(tokenizer, id, logprob) for id, logprob in token.top),
    )


def _top_logprob(tokenizer: Tokenizer, id: int, logprob: float) -> TopLogprob:
    return TopLogprob(token=tokenizer.token_text(id), logprob=_finite(logprob), bytes=tuple(tokenizer.token_bytes(id)))


def _finite(logprob: float | None) -> float:
    return max(logprob, MIN_LOGPROB) if logprob is not None else MIN_LOGPROB


class ChoiceBuilder(Protocol):
    """How one endpoint tells a choice."""

    response_object: ObjectName
    chunk_object: ObjectName

    def opening_chunk(self, choice: int) -> Choice | None:
        """What a stream says of a choice before its first text."""

    def chunks(self, output: OutputDelta) -> Sequence[Choice]:
        """Some of a stream, as one chunk or several."""

    def closing_chunk(self, choice: int, reason: FinishReason) -> Choice:
        """What a stream says of a choice after its last text."""

    def full_choice(self, output: OutputDelta, reason: FinishReason) -> Choice:
        """A choice in one piece."""


class ChatChoiceBuilder:
    response_object: ObjectName = "chat.completion"
    chunk_object: ObjectName = "chat.completion.chunk"

    def __init__(self, tokenizer: Tokenizer, *, logprobs: bool, calls_only: bool = False) -> None:
        self._tokenizer = tokenizer
        self._wants_logprobs = logprobs
        self._calls_only = calls_only

    def opening_chunk(self, choice: int) -> ChatChunkChoice:
        return ChatChunkChoice(
            index=choice, delta=DeltaMessage(role="assistant", content=None if self._calls_only else "")
        )

    def chunks(self, output: OutputDelta) -> list[ChatChunkChoice]:
        """Reasoning, words and each bit of a call apart, as clients expect them; the logprobs of all with the first.

        None for tokens that say nothing, such as the last bracket of a forced call.
        """
        deltas = [DeltaMessage(reasoning_content=output.reasoning)] if output.reasoning else []
        deltas += [DeltaMessage(content=output.text)] if output.text else []
        deltas += [DeltaMessage(tool_calls=(_call_delta(part),)) for part in output.calls]
        if not deltas and (self._wants_logprobs or output.activations):
            deltas = [DeltaMessage() if self._calls_only else DeltaMessage(content="")]
        logprobs = self._logprobs(output)
        return [
            ChatChunkChoice(index=output.choice, delta=delta, logprobs=None if place else logprobs)
            for place, delta in enumerate(deltas)
        ]

    def closing_chunk(self, choice: int, reason: FinishReason) -> ChatChunkChoice:
        return ChatChunkChoice(index=choice, delta=DeltaMessage(), finish_reason=reason)

    def full_choice(self, output: OutputDelta, reason: FinishReason) -> ChatChoice:
        return ChatChoice(
            index=output.choice,
            message=AssistantMessage(
                content=None if output.calls and not output.text else output.text,
                reasoning_content=output.reasoning or UNSET,
                tool_calls=_joined_calls(output.calls) or UNSET,
            ),
            logprobs=self._logprobs(output),
            finish_reason=reason,
        )

    def _logprobs(self, output: OutputDelta) -> ChatLogprobs | None:
        return chat_logprobs(self._tokenizer, output.tokens) if self._wants_logprobs else None


def _call_delta(part: ToolCallPart) -> ToolCallDelta:
    if part.id is None or part.name is None:
        return ToolCallDelta(index=part.index, function=FunctionCall(arguments=part.arguments))
    function = FunctionCall(name=part.name, arguments=part.arguments)
    return ToolCallDelta(index=part.index, id=part.id, type="function", function=function)


def _joined_calls(parts: Sequence[ToolCallPart]) -> tuple[AssistantToolCall, ...]:
    return tuple(
        AssistantToolCall(
            id=first.id,
            function=FunctionCall(
                name=first.name, arguments="".join(part.arguments for part in parts if part.index == first.index)
            ),
        )
        for first in parts
        if first.id is not None and first.name is not None
    )


class CompletionChoiceBuilder:
    response_object: ObjectName = "text_completion"
    chunk_object: ObjectName = "text_completion"

    def __init__(self, tokenizer: Tokenizer, *, logprobs: bool) -> None:
        self._tokenizer = tokenizer
        self._wants_logprobs = logprobs

    def opening_chunk(self, choice: int) -> None:
        """Nothing: the first text comes first."""

    def chunks(self, output: OutputDelta) -> list[CompletionChoice]:
        return [CompletionChoice(index=output.choice, text=output.text, logprobs=self._logprobs(output))]

    def closing_chunk(self, choice: int, reason: FinishReason) -> CompletionChoice:
        return CompletionChoice(index=choice, text="", finish_reason=reason)

    def full_choice(self, output: OutputDelta, reason: FinishReason) -> CompletionChoice:
        return CompletionChoice(
            index=output.choice, text=output.text, logprobs=self._logprobs(output), finish_reason=reason
        )

    def _logprobs(self, output: OutputDelta) -> CompletionLogprobs | None:
        return completion_logprobs(self._tokenizer, output) if self._wants_logprobs else None


async def create_response(
    request: Request, engine: EngineClient, generation: GenerationRequest, builder: ChoiceBuilder, *, streaming: bool
) -> Response:
    """Raises MillmError as long as nothing of the answer is out; ClientDisconnect when nobody waits for it."""
    pieces = await start_generation(engine, generation, request)
    if streaming:
        return await stream_events(request, _chunks(generation, builder, pieces))
    answer = await cancel_on_disconnect(request, _full_response(generation, builder, pieces))
    return Response(msgspec.json.encode(answer), media_type="application/json")


async def _chunks(
    generation: GenerationRequest, builder: ChoiceBuilder, outputs: OutputStream
) -> AsyncGenerator[CompletionResponse]:
    begun: set[int] = set()
    ends: list[ChoiceEnd] = []
    async with aclosing(outputs):
        async for piece in outputs:
            opening = builder.opening_chunk(piece.choice) if piece.choice not in begun else None
            begun.add(piece.choice)
            if opening:
                yield _chunk_response(generation, builder, opening)
            for chunk in _output_chunks(generation, builder, piece):
                yield chunk
            if piece.end:
                ends.append(piece.end)
    if generation.include_usage:
        yield _completion_response(generation, builder.chunk_object, (), usage=_usage(generation, ends))


def _output_chunks(
    generation: GenerationRequest, builder: ChoiceBuilder, output: OutputDelta
) -> list[CompletionResponse]:
    """One chunk for what was written, one for its end."""
    chunks: list[CompletionResponse] = []
    if output.has_content:
        watched = (
            Extension(activations=output.activations, sample_every=generation.sample_every)
            if output.activations
            else UNSET
        )
        parts = enumerate(builder.chunks(output))
        chunks += [_chunk_response(generation, builder, part, UNSET if place else watched) for place, part in parts]
    if output.end:
        receipt = _extension(generation, [output], watching=False)
        chunks.append(
            _chunk_response(generation, builder, builder.closing_chunk(output.choice, output.end.reason), receipt)
        )
    return chunks


async def _full_response(
    generation: GenerationRequest, builder: ChoiceBuilder, outputs: OutputStream
) -> CompletionResponse:
    choices = await collect_choices(outputs, len(generation.sequences))
    told = pick_best(choices, generation.samples_per_prompt, generation.choices_per_prompt)
    ended = [(piece, piece.end) for piece in told if piece.end]
    return _completion_response(
        generation,
        builder.response_object,
        [builder.full_choice(piece, end.reason) for piece, end in ended],
        usage=_usage(generation, [piece.end for piece in choices if piece.end]),
        extension=_extension(generation, told, watching=bool(generation.watching.request_watches)),
    )


def _extension(generation: GenerationRequest, choices: Sequence[OutputDelta], *, watching: bool) -> Extension:
    return build_extension(
        generation.selection,
        choices,
        watching=watching,
        sample_every=generation.sample_every,
        tools_omitted=generation.tools_omitted,
    )


def _chunk_response(
    generation: GenerationRequest, builder: ChoiceBuilder, choice: Choice, extension: Extension | UnsetType = UNSET
) -> CompletionResponse:
    usage = None if generation.include_usage else UNSET
    return _completion_response(generation, builder.chunk_object, [choice], usage=usage, extension=extension)


def _completion_response(
    generation: GenerationRequest,
    object_name: ObjectName,
    choices: Sequence[Choice],
    *,
    usage: Usage | UnsetType | None,
    extension: Extension | UnsetType = UNSET,
) -> CompletionResponse:
    return CompletionResponse(
        id=generation.id,
        object=object_name,
        created=generation.created,
        model=generation.requested_model,
        system_fingerprint=generation.system_fingerprint,
        choices=tuple(choices),
        usage=usage,
        millm=extension,
    )


def _usage(generation: GenerationRequest, ends: Sequence[ChoiceEnd]) -> Usage:
    """A prompt counts once, however many choices it has; so does what was cached of it."""
    completion = sum(end.tokens for end in ends)
    cached = min(sum(end.cached_tokens for end in ends), generation.prompt_tokens)
    return Usage(
        prompt_tokens=generation.prompt_tokens,
        completion_tokens=completion,
        total_tokens=generation.prompt_tokens + completion,
        prompt_tokens_details=PromptDetails(cached_tokens=cached),
    )
