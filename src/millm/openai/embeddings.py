"""`POST /v1/embeddings`: texts as vectors. Whatever steers the server, a vector is the base model's own."""

import asyncio
import uuid
from collections.abc import Sequence
from functools import partial
from urllib.parse import unquote

import msgspec
from fastapi import APIRouter, Request, Response
from msgspec import UNSET, UnsetType
from msgspec.structs import replace

from millm.engine.messages import Embed, Embedded, Watch
from millm.errors import ContextLengthExceeded, InvalidRequest, Timeout, UnsupportedParameter
from millm.lifecycle.on_demand import ready_for
from millm.monitor.recording import Asked, Outcome, Recording
from millm.monitor.rows import Source
from millm.monitor.sources import source_of
from millm.monitor.watching import Watching, merged
from millm.openai.broadcast import until_its_end
from millm.openai.disconnect import unless_gone
from millm.openai.ended import rows_of
from millm.openai.job import ProfileHeader
from millm.openai.json_route import JsonRoute
from millm.openai.schemas.embeddings import (
    Embedding,
    EmbeddingAnswer,
    EmbeddingExtension,
    EmbeddingRequest,
    EmbeddingUsage,
    Input,
    InputActivation,
)
from millm.openai.vectors import shortened, written
from millm.openai.watching import watching_of
from millm.profiles.selection import select
from millm.state import LoadedModel, State

router = APIRouter(route_class=JsonRoute)

AT_ONCE = 256
"""Readings that are told in one turn of the event loop."""


@router.post("/embeddings")
async def embeddings(body: EmbeddingRequest, request: Request, x_millm_profile: ProfileHeader = None) -> Response:
    """One vector of unit length for each input, in their order."""
    state: State = request.app.state.millm
    await ready_for(state, body.model)
    model = _chosen(state, body, x_millm_profile)
    watching = _read_everywhere(watching_of(state, body.activations or ()))
    source = source_of(request.headers)
    state.engine.check_room()
    inputs = await asyncio.to_thread(_ids, model, body.input)
    job_id = f"embd-{uuid.uuid4().hex}"
    texts = _texts(state, model, inputs, watching.engine, job_id)
    asked = _asked(request.scope["path"], model, source, texts, watching, job_id, await request.body())
    recording = state.monitor.record(asked, rows_of(request.scope).append)
    with until_its_end(recording):
        vectors = await unless_gone(request, _in_time(state, texts))
        recording.ended(Outcome(end="embedded"))
        await _record(recording, model, texts, vectors)
    found = await asyncio.to_thread(_activations, model, texts, vectors, watching)
    answer = await asyncio.to_thread(_answer, body, vectors, _usage(texts), _extension(watching.asked, found))
    return Response(answer, media_type="application/json")


def _answer(
    body: EmbeddingRequest, vectors: Sequence[Embedded], usage: EmbeddingUsage, extension: EmbeddingExtension
) -> bytes:
    data = tuple(
        Embedding(index=index, embedding=written(shortened(vector.vector, body.dimensions), body.encoding_format))
        for index, vector in enumerate(vectors)
    )
    return msgspec.json.encode(EmbeddingAnswer(data=data, model=body.model, usage=usage, millm=extension))


def _chosen(state: State, body: EmbeddingRequest, header_profile: str | None) -> LoadedModel:
    """Raises what `select` raises; UnsupportedParameter where a steering is asked for by itself."""
    if (body.model_extra or {}).get("steering"):
        raise UnsupportedParameter("`steering` is not applied to embeddings; leave it out.", param="steering")
    selection = select(
        state,
        model=body.model,
        profile=body.profile or unquote(header_profile or "") or None,
        steering=None,
        steering_given=False,
    )
    width = selection.model.facts.width
    if body.dimensions is not None and body.dimensions > width:
        raise InvalidRequest(f"`dimensions` should be from 1 to {width}.", param="dimensions")
    return selection.model


def _read_everywhere(watching: Watching) -> Watching:
    """A text is never steered, and all of it is read."""
    asked, monitored = (
        [replace(watch, tokens="all", when="before") for watch in some] for some in (watching.asked, watching.monitored)
    )
    return merged(asked, monitored)


def _asked(
    endpoint: str,
    model: LoadedModel,
    source: Source,
    texts: Sequence[Embed],
    watching: Watching,
    job_id: str,
    body: bytes,
) -> Asked:
    lengths = tuple(len(text.tokens) for text in texts)
    return Asked(
        id=job_id,
        endpoint=endpoint,
        model=model.name,
        profile=None,
        source=source,
        streamed=False,
        prompts=lengths,
        prompt_tokens=sum(lengths),
        watching=watching,
        sequences=tuple(text.id for text in texts),
        read=lambda: tuple(model.tokenizer.decode(text.tokens, skip_special=False) for text in texts),
        body=body,
    )


# ------------------------------------------------------------------------------------------------ texts as token ids


def _ids(model: LoadedModel, inputs: Sequence[Input]) -> list[list[int]]:
    """Raises InvalidRequest or ContextLengthExceeded, naming the input."""
    most = min(model.recipe.longest or model.facts.context_length, model.facts.context_length)
    return [_ids_of(model, place, given, most) for place, given in enumerate(inputs)]


def _ids_of(model: LoadedModel, place: int, given: Input, most: int) -> list[int]:
    name = f"input.{place}"
    if isinstance(given, str) and not model.tokenizer.may_fit(given, most):
        raise _too_long(name, most, f"more than {most}")
    ids = model.tokenizer.encode_whole(model.recipe.prepared(given)) if isinstance(given, str) else given
    if not ids:
        raise InvalidRequest(f"`{name}` holds nothing that this model reads.", param=name)
    if max(ids) >= model.facts.vocab_size:
        raise InvalidRequest(f"`{name}` takes token ids from 0 to {model.facts.vocab_size - 1}.", param=name)
    if len(ids) > most:
        raise _too_long(name, most, str(len(ids)))
    return ids


def _too_long(name: str, most: int, found: str) -> ContextLengthExceeded:
    return ContextLengthExceeded(
        f"This model's maximum context length is {most} tokens, and `{name}` has {found}; shorten it.", param=name
    )


# ------------------------------------------------------------------------------------------------- texts as vectors


def _texts(
    state: State, model: LoadedModel, inputs: Sequence[Sequence[int]], watch: tuple[Watch, ...], job_id: str
) -> list[Embed]:
    return [
        Embed(
            id=f"{job_id}-{place}",
            tokens=tuple(ids),
            pooling=model.recipe.pooling,
            watch=watch,
            deadline_seconds=state.settings.request_timeout,
            model=model.facts.id,
        )
        for place, ids in enumerate(inputs)
    ]


async def _in_time(state: State, texts: Sequence[Embed]) -> list[Embedded]:
    """The texts of a long job reach the engine one after the other, so its deadlines alone would not do."""
    seconds = state.settings.request_timeout
    try:
        async with asyncio.timeout(seconds):
            return await state.engine.embed(*texts)
    except TimeoutError as error:
        raise Timeout(f"this request took longer than {seconds:g} s; ask for less") from error


def _usage(texts: Sequence[Embed]) -> EmbeddingUsage:
    tokens = sum(len(text.tokens) for text in texts)
    return EmbeddingUsage(prompt_tokens=tokens, total_tokens=tokens)


# ------------------------------------------------------------------------------------------------ what was watched


def _activations(
    model: LoadedModel, texts: Sequence[Embed], vectors: Sequence[Embedded], watching: Watching
) -> tuple[InputActivation, ...]:
    return tuple(
        InputActivation(
            input=place,
            sae=reading.sae,
            position=reading.position,
            token=model.tokenizer.token_text(text.tokens[reading.position]),
            values=reading.values,
            top=reading.top or UNSET,
        )
        for place, (text, vector) in enumerate(zip(texts, vectors, strict=True))
        for reading in watching.of_request(vector.readings, len(text.tokens))
    )


def _extension(watch: tuple[Watch, ...], found: tuple[InputActivation, ...]) -> EmbeddingExtension:
    every: int | UnsetType = next((one.sample_every for one in watch if one.sample_every), UNSET)
    return EmbeddingExtension(activations=found if watch else UNSET, sample_every=every)


async def _record(
    recording: Recording, model: LoadedModel, texts: Sequence[Embed], vectors: Sequence[Embedded]
) -> None:
    """There may be a hundred thousand readings: others have a turn of the event loop in between."""
    for place, (text, vector) in enumerate(zip(texts, vectors, strict=True)):
        for first in range(0, len(vector.readings), AT_ONCE):
            some = vector.readings[first : first + AT_ONCE]
            recording.saw(place, some, partial(_text_at, model, text.tokens))
            await asyncio.sleep(0)


def _text_at(model: LoadedModel, ids: Sequence[int], position: int) -> str:
    return model.tokenizer.token_text(ids[position])
