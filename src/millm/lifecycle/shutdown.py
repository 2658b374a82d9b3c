"""Graceful shutdown: stop accepting requests, wait for the running ones, abort the rest. Also the daily backup."""

import asyncio
import time
from collections.abc import Callable
from datetime import UTC, datetime

from millm.errors import ShuttingDown
from millm.state import State

IDLE_CHECK_SECONDS = 60.0
MAX_IDLE_CHECKS = 60
"""After this many checks a busy server is backed up too."""
ABORT_GRACE_SECONDS = 2.0
"""Time for aborted requests to send an error, and for websockets to close."""
_POLL_SECONDS = 0.02


async def back_up_daily(state: State) -> None:
    """Back up the database once a day, preferably while no request runs. Runs until cancelled."""
    while True:
        for _ in range(MAX_IDLE_CHECKS):
            if _is_idle(state):
                break
            await asyncio.sleep(IDLE_CHECK_SECONDS)
        await asyncio.to_thread(state.hub.database.back_up, datetime.now(UTC))
        await asyncio.sleep(MAX_IDLE_CHECKS * IDLE_CHECK_SECONDS)


def _is_idle(state: State) -> bool:
    return not state.is_starting and state.engine.in_flight == 0


class StopSignals:
    """Stop signals received: the first starts a graceful stop, the second ends it at once."""

    def __init__(self) -> None:
        self.first = asyncio.Event()
        self.second = asyncio.Event()

    def record(self) -> None:
        (self.second if self.first.is_set() else self.first).set()


def start_draining(state: State) -> None:
    """Set the status to `draining`."""
    state.drain_gate.start_draining()
    state.publish_status()


async def wait_for_requests(state: State, seconds: float, signals: StopSignals) -> None:
    """Return when all answers are complete, after `seconds`, or on the second stop signal."""
    await _wait_until(lambda: state.drain_gate.active_requests == 0 or signals.second.is_set(), seconds)


async def abort_requests(state: State) -> None:
    """End the remaining requests with ShuttingDown, and close the event websockets."""
    state.engine.abort_all(
        ShuttingDown("the server was stopped before this answer had ended; try again when it is back")
    )
    state.events.close()
    await _wait_until(lambda: state.drain_gate.active_requests == 0 and len(state.events) == 0, ABORT_GRACE_SECONDS)


async def _wait_until(condition: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        await asyncio.sleep(_POLL_SECONDS)
