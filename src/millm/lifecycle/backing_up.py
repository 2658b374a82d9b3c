"""Once a day a copy of what is remembered, made beside the work: while nobody waits for an answer, if that can be."""

import asyncio
from datetime import UTC, datetime

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
