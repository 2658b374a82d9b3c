"""A job's answer, streamed or whole: both are made of the same pieces in the same form."""

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing

import msgspec
from fastapi import Request, Response
from msgspec import UNSET, UnsetType

from millm.engine.client import EngineClient
from millm.monitor.monitor import Monitor
from millm.monitor.recording import Recording
from millm.monitor.sources import source_of
from millm.openai.best_of import best
from millm.openai.broadcast import follow, until_its_end
from millm.openai.disconnect import unless_gone
from millm.openai.ended import rows_of
from millm.openai.extension import receipt_of
from millm.openai.forms import Form
from millm.openai.job import Job
from millm.openai.pieces import End, Piece, joined, write
from millm.openai.schemas.answers import Answer, Choice, Extension, ObjectName, PromptDetails, Usage
from millm.openai.streaming import stream
from millm.text.detokenizer import Detokenizer

Pieces = AsyncGenerator[Piece]


async def tell(request: Request, engine: EngineClient, job: Job, form: Form, *, streaming: bool) -> Response:
    """Raises MillmError as long as nothing of the answer is out; ClientDisconnect when nobody waits for it."""
    pieces = await pieces_of(engine, job, request)
    if streaming:
        return await stream(request, _chunks(job, form, pieces))
    answer = await unless_gone(request, _whole(job, form, pieces))
    return Response(msgspec.json.encode(answer), media_type="application/json")


async def pieces_of(engine: EngineClient, job: Job, request: Request) -> Pieces:
    """What is written, as it comes; the monitor is told of it. Raises InvalidRequest for a strange `X-Millm-Source`."""
    asked = job.asked(request.scope["path"], source_of(request.headers, job.last_words), await request.body())
    monitor: Monitor = request.app.state.millm.monitor
    return _pieces(engine, job, lambda: monitor.record(asked, rows_of(request.scope).append))


async def _pieces(engine: EngineClient, job: Job, record: Callable[[], Recording]) -> Pieces:
    tokenizer = job.selection.model.tokenizer
    texts = [Detokenizer(tokenizer, job.stop, continues=job.continues, shown=job.reading.shown) for _ in job.sequences]
    recording = record()
    pieces = write(
        engine, job.sequences, texts, tokenizer, job.reading, job.echoes, watching=job.watching, recording=recording
    )
    with until_its_end(recording):
        async with aclosing(pieces):
            async for piece in pieces:
                follow(recording, piece)
                yield piece


async def _chunks(job: Job, form: Form, pieces: Pieces) -> AsyncGenerator[Answer]:
    begun: set[int] = set()
    ends: list[End] = []
    async with aclosing(pieces):
        async for piece in pieces:
            opening = form.opening(piece.choice) if piece.choice not in begun else None
            begun.add(piece.choice)
            if opening:
                yield _chunk(job, form, opening)
            for chunk in _of_piece(job, form, piece):
                yield chunk
            if piece.end:
                ends.append(piece.end)
    if job.include_usage:
        yield _answer(job, form.chunk_object, (), usage=_usage(job, ends))


def _of_piece(job: Job, form: Form, piece: Piece) -> list[Answer]:
    """One chunk for what was written, one for its end."""
    chunks: list[Answer] = []
    if piece.says_something:
        watched = (
            Extension(activations=piece.activations, sample_every=job.sample_every) if piece.activations else UNSET
        )
        parts = enumerate(form.parts(piece))
        chunks += [_chunk(job, form, part, UNSET if place else watched) for place, part in parts]
    if piece.end:
        receipt = _receipt(job, [piece], watching=False)
        chunks.append(_chunk(job, form, form.closing(piece.choice, piece.end.reason), receipt))
    return chunks


async def _whole(job: Job, form: Form, pieces: Pieces) -> Answer:
    choices = await joined(pieces, len(job.sequences))
    told = best(choices, job.tries, job.told)
    ended = [(piece, piece.end) for piece in told if piece.end]
    return _answer(
        job,
        form.whole_object,
        [form.whole(piece, end.reason) for piece, end in ended],
        usage=_usage(job, [piece.end for piece in choices if piece.end]),
        extension=_receipt(job, told, watching=bool(job.watching.asked)),
    )


def _receipt(job: Job, choices: Sequence[Piece], *, watching: bool) -> Extension:
    return receipt_of(
        job.selection,
        choices,
        watching=watching,
        sample_every=job.sample_every,
        tools_omitted=job.tools_omitted,
    )


def _chunk(job: Job, form: Form, choice: Choice, extension: Extension | UnsetType = UNSET) -> Answer:
    usage = None if job.include_usage else UNSET
    return _answer(job, form.chunk_object, [choice], usage=usage, extension=extension)


def _answer(
    job: Job,
    name: ObjectName,
    choices: Sequence[Choice],
    *,
    usage: Usage | UnsetType | None,
    extension: Extension | UnsetType = UNSET,
) -> Answer:
    return Answer(
        id=job.id,
        object=name,
        created=job.created,
        model=job.asked_model,
        system_fingerprint=job.fingerprint,
        choices=tuple(choices),
        usage=usage,
        millm=extension,
    )


def _usage(job: Job, ends: Sequence[End]) -> Usage:
    """A prompt counts once, however many choices it has; so does what was cached of it."""
    completion = sum(end.tokens for end in ends)
    cached = min(sum(end.cached_tokens for end in ends), job.prompt_tokens)
    return Usage(
        prompt_tokens=job.prompt_tokens,
        completion_tokens=completion,
        total_tokens=job.prompt_tokens + completion,
        prompt_tokens_details=PromptDetails(cached_tokens=cached),
    )
