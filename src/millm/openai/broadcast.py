"""Activations on their way into an answer, told to whoever listens to the server's events as well."""

from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing

from millm.engine.messages import Watch
from millm.events import Activations, Events
from millm.openai.job import Job
from millm.openai.pieces import Piece


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
        yield Activations(
            endpoint=endpoint,
            request_id=job.id,
            index=found.choice,
            position=found.position,
            token=found.token,
            sae=found.sae,
            features=watched(watch, found.sae),
            values=found.values,
            top=found.top,
        )


def watched(watch: Iterable[Watch], sae: str) -> tuple[int, ...]:
    """The features whose values come with a reading of this SAE."""
    return next((one.features for one in watch if one.sae == sae), ())
