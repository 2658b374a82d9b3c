"""An answer on its way out, told to the monitor: its first token, its ends, and what became of it."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from millm.errors import MillmError
from millm.monitoring.recorder import ChoiceOutcome, RequestRecorder
from millm.openai.pieces import OutputDelta


def record_output(recording: RequestRecorder, output: OutputDelta) -> None:
    if output.has_content:
        recording.record_first_token()
        recording.record_text(output.choice, output.text)
    if end := output.end:
        recording.record_outcome(
            ChoiceOutcome(end=end.reason, tokens=end.tokens, cached_tokens=end.cached_tokens, receipt=end.receipt)
        )


@contextmanager
def closing_recording(recording: RequestRecorder) -> Iterator[None]:
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
