"""`POST /v1/embeddings`: texts or token ids as vectors of the base model; steering never applies."""

import asyncio
import base64
import time
import uuid
from collections.abc import Sequence
from functools import partial
from typing import Literal
from urllib.parse import unquote

import msgspec
import numpy as np
import numpy.typing as npt
from fastapi import APIRouter, Request, Response
from msgspec import UNSET, UnsetType
from msgspec.structs import replace

from millm.api.json_body import JsonRoute
from millm.api.sse import cancel_on_disconnect
from millm.engine.messages import Embed, TextEmbedded
from millm.errors import ContextLengthExceeded, InvalidRequest, Timeout, UnsupportedParameter
from millm.events import RequestRecord
from millm.generation.request import ProfileHeader, resolve_watching
from millm.lifecycle.restore import ensure_loaded
from millm.lifecycle.selection import select
from millm.loaded import LoadedModel
from millm.monitoring.clients import identify_client
from millm.monitoring.recorder import RequestRecorder
from millm.monitoring.watch import WatchPlan, merge_watches
from millm.protocol.request import EmbeddingRequest, Input
from millm.protocol.response import Embedding, EmbeddingAnswer, EmbeddingExtension, EmbeddingUsage, InputActivation
from millm.sae.steering import Watch
from millm.state import State

Vector = npt.NDArray[np.float32]


def truncate_vector(data: bytes, dimensions: int | None) -> Vector:
    """The first `dimensions` of a little-endian float32 vector, normalized  # [dimensions]"""
    vector = np.frombuffer(data, dtype="<f4")
    if dimensions is None or dimensions == len(vector):
        return vector
    head = vector[:dimensions]
    unit: Vector = head / np.maximum(np.linalg.norm(head), np.float32(1e-12))
    return unit


def encode_vector(vector: Vector, encoding: Literal["float", "base64"]) -> str | msgspec.Raw:
    if encoding == "base64":
        return base64.b64encode(vector.astype("<f4").tobytes()).decode()
    # str of a float32 has the fewest digits that identify it; as a Python float it would have 17
    return msgspec.Raw(f"[{','.join(map(str, vector))}]".encode())


router = APIRouter(route_class=JsonRoute)
READINGS_PER_TURN = 256
"""Readings recorded per turn of the event loop."""


@router.post("/embeddings")
async def embeddings(body: EmbeddingRequest, request: Request, x_millm_profile: ProfileHeader = None) -> Response:
    """One vector of unit length for each input, in order."""
    state: State = request.app.state.millm
    await ensure_loaded(state, body.model)
    model = _select_model(state, body, x_millm_profile)
    watching = _watch_all_tokens(resolve_watching(state, body.activations or ()))
    client, task = identify_client(request.headers)
    state.engine.check_capacity()
    inputs = await asyncio.to_thread(_input_ids, model, body.input)
    request_id = f"embd-{uuid.uuid4().hex}"
    texts = _embed_messages(state, model, inputs, watching.engine_watches, request_id)
    record = RequestRecord(
        id=request_id,
        endpoint=request.scope["path"],
        model=model.name,
        profile=None,
        client=client,
        task=task,
        began=time.time(),
        streamed=False,
        choices=len(texts),
        prompt_tokens=sum(len(text.tokens) for text in texts),
    )
    prompts = {text.id: text.tokens for text in texts}
    read_prompts = partial(_decode_texts, model, texts)
    with state.monitor.recording(
        request.scope, record, watching, prompts, read_prompts, await request.body()
    ) as recorder:
        vectors = await cancel_on_disconnect(request, _embed_with_timeout(state, texts))
        recorder.record_end("embedded")
        await _record_readings(recorder, model, texts, vectors)
    activations = await asyncio.to_thread(_activations, model, texts, vectors, watching)
    content = await asyncio.to_thread(
        _encode_response, body, vectors, _usage(texts), _extension(watching.request_watches, activations)
    )
    return Response(content, media_type="application/json")


def _encode_response(
    body: EmbeddingRequest, vectors: Sequence[TextEmbedded], usage: EmbeddingUsage, extension: EmbeddingExtension
) -> bytes:
    data = tuple(
        Embedding(
            index=index, embedding=encode_vector(truncate_vector(vector.vector, body.dimensions), body.encoding_format)
        )
        for index, vector in enumerate(vectors)
    )
    return msgspec.json.encode(EmbeddingAnswer(data=data, model=body.model, usage=usage, millm=extension))


def _select_model(state: State, body: EmbeddingRequest, header_profile: str | None) -> LoadedModel:
    """Raises what `select` raises, and UnsupportedParameter for a `steering`."""
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


def _watch_all_tokens(watching: WatchPlan) -> WatchPlan:
    """Inputs are never steered, and read at every token."""
    own, monitored = (
        [replace(watch, tokens="all", when="before") for watch in watches]
        for watches in (watching.request_watches, watching.monitor_only)
    )
    return merge_watches(own, monitored)


def _decode_texts(model: LoadedModel, texts: Sequence[Embed]) -> tuple[str, ...]:
    return tuple(model.tokenizer.decode(text.tokens, skip_special=False) for text in texts)


# ------------------------------------------------------------------------------------------------ texts as token ids


def _input_ids(model: LoadedModel, inputs: Sequence[Input]) -> list[list[int]]:
    """Raises InvalidRequest or ContextLengthExceeded, naming the input."""
    limit = min(model.embedding_recipe.max_tokens or model.facts.context_length, model.facts.context_length)
    return [_token_ids(model, index, text_or_ids, limit) for index, text_or_ids in enumerate(inputs)]


def _token_ids(model: LoadedModel, index: int, text_or_ids: Input, max_tokens: int) -> list[int]:
    name = f"input.{index}"
    if isinstance(text_or_ids, str) and not model.tokenizer.can_fit(text_or_ids, max_tokens):
        raise _length_error(name, max_tokens, f"more than {max_tokens}")
    ids = (
        model.tokenizer.encode_with_special_tokens(model.embedding_recipe.prepare_text(text_or_ids))
        if isinstance(text_or_ids, str)
        else text_or_ids
    )
    if not ids:
        raise InvalidRequest(f"`{name}` has no token of this model.", param=name)
    if max(ids) >= model.facts.vocab_size:
        raise InvalidRequest(f"`{name}` accepts token ids from 0 to {model.facts.vocab_size - 1}.", param=name)
    if len(ids) > max_tokens:
        raise _length_error(name, max_tokens, str(len(ids)))
    return ids


def _length_error(name: str, max_tokens: int, actual: str) -> ContextLengthExceeded:
    return ContextLengthExceeded(
        f"This model's maximum context length is {max_tokens} tokens, and `{name}` has {actual}; shorten it.",
        param=name,
    )


# ------------------------------------------------------------------------------------------------- texts as vectors


def _embed_messages(
    state: State, model: LoadedModel, inputs: Sequence[Sequence[int]], watch: tuple[Watch, ...], request_id: str
) -> list[Embed]:
    return [
        Embed(
            id=f"{request_id}-{index}",
            tokens=tuple(ids),
            pooling=model.embedding_recipe.pooling,
            watch=watch,
            deadline_seconds=state.settings.request_timeout,
            model=model.facts.id,
        )
        for index, ids in enumerate(inputs)
    ]


async def _embed_with_timeout(state: State, texts: Sequence[Embed]) -> list[TextEmbedded]:
    """Limits the request; the engine's deadlines start only when it reads a text."""
    seconds = state.settings.request_timeout
    try:
        async with asyncio.timeout(seconds):
            return await state.engine.embed(*texts)
    except TimeoutError as error:
        raise Timeout(f"this request took longer than {seconds:g} s; shorten it") from error


def _usage(texts: Sequence[Embed]) -> EmbeddingUsage:
    tokens = sum(len(text.tokens) for text in texts)
    return EmbeddingUsage(prompt_tokens=tokens, total_tokens=tokens)


# ------------------------------------------------------------------------------------------------ what was watched


def _activations(
    model: LoadedModel, texts: Sequence[Embed], vectors: Sequence[TextEmbedded], watching: WatchPlan
) -> tuple[InputActivation, ...]:
    return tuple(
        InputActivation(
            input=index,
            sae=reading.sae,
            position=reading.position,
            token=model.tokenizer.token_text(text.tokens[reading.position]),
            values=reading.values,
            top=reading.top or UNSET,
        )
        for index, (text, vector) in enumerate(zip(texts, vectors, strict=True))
        for reading in watching.request_readings(vector.readings, len(text.tokens))
    )


def _extension(watch: tuple[Watch, ...], activations: tuple[InputActivation, ...]) -> EmbeddingExtension:
    every: int | UnsetType = next((item.sample_every for item in watch if item.sample_every), UNSET)
    return EmbeddingExtension(activations=activations if watch else UNSET, sample_every=every)


async def _record_readings(
    recorder: RequestRecorder, model: LoadedModel, texts: Sequence[Embed], vectors: Sequence[TextEmbedded]
) -> None:
    """Yields to the event loop in between: there may be a hundred thousand readings."""
    for index, (text, vector) in enumerate(zip(texts, vectors, strict=True)):
        for first in range(0, len(vector.readings), READINGS_PER_TURN):
            readings = vector.readings[first : first + READINGS_PER_TURN]
            recorder.record_readings(index, readings, partial(_text_at, model, text.tokens))
            await asyncio.sleep(0)


def _text_at(model: LoadedModel, ids: Sequence[int], position: int) -> str:
    return model.tokenizer.token_text(ids[position])
