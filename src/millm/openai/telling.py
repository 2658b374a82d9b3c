"""A job's answer, streamed or whole: both are made of the same pieces in the same form."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

import msgspec
from fastapi import Request, Response
from msgspec import UNSET, UnsetType

from millm.engine.client import EngineClient
from millm.generation.output import (
    ChoiceEnd,
    OutputDelta,
    OutputStream,
    build_extension,
    collect_choices,
    pick_best,
    start_generation,
)
from millm.generation.request import GenerationRequest
from millm.openai.disconnect import cancel_on_disconnect
from millm.openai.forms import ChoiceBuilder
from millm.openai.streaming import stream_events
from millm.protocol.response import Choice, CompletionResponse, Extension, ObjectName, PromptDetails, Usage


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
