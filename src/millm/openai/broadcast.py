"""An answer on its way out, told to the monitor: its first token, its ends, and what became of it."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from millm.errors import MillmError
from millm.monitor.recording import Outcome, Recording
from millm.openai.pieces import Piece


def follow(recording: Recording, piece: Piece) -> None:
    if piece.says_something:
        recording.first_token()
        recording.wrote(piece.choice, piece.text)
    if end := piece.end:
        recording.ended(
            Outcome(end=end.reason, tokens=end.tokens, cached_tokens=end.cached_tokens, receipt=end.receipt)
        )


@contextmanager
def until_its_end(recording: Recording) -> Iterator[None]:
    """However that comes, the recording is closed with it."""
    try:
        yield
    except MillmError as error:
        recording.close("failed", error.code)
        raise
    except (GeneratorExit, asyncio.CancelledError):
        recording.close("cancelled")
        raise
    except BaseException:
        recording.close("failed")
        raise
    recording.close()
