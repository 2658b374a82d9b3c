"""Activations on their way into an answer, told to whoever listens to the server's events as well."""

from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing

from millm.engine.messages import Watch
from millm.events import Activations, Events
from millm.openai.job import Job
from millm.openai.pieces import Piece
from millm.openai.schemas.answers import Activation
from millm.openai.schemas.embeddings import InputActivation


async def published(pieces: AsyncGenerator[Piece], job: Job, endpoint: str, events: Events) -> AsyncGenerator[Piece]:
    """The same pieces."""
    async with aclosing(pieces):
        async for piece in pieces:
            if piece.activations and len(events):
                for event in _events(piece, job, endpoint):
                    events.publish(event)
            yield piece


def _events(piece: Piece, job: Job, endpoint: str) -> Iterable[Activations]:
    watch = job.sequences[piece.choice].watch
    for found in piece.activations:
        yield event_of(found, found.choice, watch, endpoint, job.id)


def event_of(
    found: Activation | InputActivation, index: int, watch: Iterable[Watch], endpoint: str, request_id: str
) -> Activations:
    """`index`: of the choice or the input that the token belongs to."""
    return Activations(
        endpoint=endpoint,
        request_id=request_id,
        index=index,
        position=found.position,
        token=found.token,
        sae=found.sae,
        features=next((one.features for one in watch if one.sae == found.sae), ()),
        values=found.values,
        top=found.top,
    )
