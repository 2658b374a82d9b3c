"""Stopping: nobody new is let in, who is inside has some time to end, and who then is still there is told so."""

import asyncio
import time
from collections.abc import Callable

from millm.errors import ShuttingDown
from millm.state import State

LAST_WORDS_SECONDS = 2.0
"""For those who are told: long enough to write an event, and to say goodbye to a websocket."""
_TICK_SECONDS = 0.02


class Asked:
    """How often somebody has asked the server to stop: once is a request, twice an order."""

    def __init__(self) -> None:
        self.once = asyncio.Event()
        self.twice = asyncio.Event()

    def again(self) -> None:
        (self.twice if self.once.is_set() else self.once).set()


def close_doors(state: State) -> None:
    """From here on the server is `draining`."""
    state.doors.close()
    state.tell_status()


async def let_end(state: State, seconds: float, asked: Asked) -> None:
    """Until everybody inside has got the whole of an answer, the time is over, or it is to stop at once."""
    await _until(lambda: state.doors.inside == 0 or asked.twice.is_set(), seconds)


async def send_away(state: State) -> None:
    """Whatever is left ends with ShuttingDown; who listens to events is told that the server goes away."""
    state.engine.end(ShuttingDown("the server was stopped before this answer had ended; try again when it is back"))
    state.events.close()
    await _until(lambda: state.doors.inside == 0 and len(state.events) == 0, LAST_WORDS_SECONDS)


async def _until(is_so: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not is_so() and time.monotonic() < deadline:
        await asyncio.sleep(_TICK_SECONDS)
