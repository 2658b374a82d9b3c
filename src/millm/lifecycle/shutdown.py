"""Stopping: nobody new is let in, who is inside has some time to end, and who then is still there is told so.

Once a day a copy of what is remembered, made beside the work: while nobody waits for an answer, if that can be.
"""

import asyncio
import time
from collections.abc import Callable
from datetime import UTC, datetime

from millm.errors import ShuttingDown
from millm.state import State

IDLE_CHECK_SECONDS = 60.0
MAX_IDLE_CHECKS = 60
"""After so many it is made all the same: a server that never rests needs its backup too."""


async def back_up_daily(state: State) -> None:
    """For as long as the server runs."""
    while True:
        for _ in range(MAX_IDLE_CHECKS):
            if _is_idle(state):
                break
            await asyncio.sleep(IDLE_CHECK_SECONDS)
        await asyncio.to_thread(state.hub.database.back_up, datetime.now(UTC))
        await asyncio.sleep(MAX_IDLE_CHECKS * IDLE_CHECK_SECONDS)


def _is_idle(state: State) -> bool:
    return not state.is_starting and state.engine.in_flight == 0


ABORT_GRACE_SECONDS = 2.0
"""For those who are told: long enough to write an event, and to say goodbye to a websocket."""
_POLL_SECONDS = 0.02


class StopSignals:
    """How often somebody has asked the server to stop: once is a request, twice an order."""

    def __init__(self) -> None:
        self.first = asyncio.Event()
        self.second = asyncio.Event()

    def record(self) -> None:
        (self.second if self.first.is_set() else self.first).set()


def start_draining(state: State) -> None:
    """From here on the server is `draining`."""
    state.drain_gate.start_draining()
    state.publish_status()


async def wait_for_requests(state: State, seconds: float, signals: StopSignals) -> None:
    """Until everybody inside has got the whole of an answer, the time is over, or it is to stop at once."""
    await _wait_until(lambda: state.drain_gate.active_requests == 0 or signals.second.is_set(), seconds)


async def abort_requests(state: State) -> None:
    """Whatever is left ends with ShuttingDown; who listens to events is told that the server goes away."""
    state.engine.abort_all(
        ShuttingDown("the server was stopped before this answer had ended; try again when it is back")
    )
    state.events.close()
    await _wait_until(lambda: state.drain_gate.active_requests == 0 and len(state.events) == 0, ABORT_GRACE_SECONDS)


async def _wait_until(condition: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        await asyncio.sleep(_POLL_SECONDS)
