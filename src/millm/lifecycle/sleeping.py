"""A model that nobody asks leaves the memory after `MILLM_KEEP_ALIVE`, and comes back with the next request."""

import asyncio

import structlog

from millm.errors import MillmError
from millm.lifecycle.changes import change
from millm.state import State
from millm.status import Changing

log = structlog.get_logger()

TICK_SECONDS = 0.5


async def watch_idle(state: State) -> None:
    """Until it is cancelled."""
    while True:
        await asyncio.sleep(TICK_SECONDS)
        if is_due(state):
            await change(state, Changing(what="unload", name=state.model_or_raise().name), lambda _tell: _doze(state))


def seconds_left(state: State) -> float | None:
    """Until it leaves, if nobody asks it anything; None: it stays, or is gone."""
    if state.settings.keep_alive < 0 or state.status != "ready":
        return None
    return max(0.0, state.settings.keep_alive - state.engine.idle_seconds)


def is_due(state: State) -> bool:
    return seconds_left(state) == 0.0 and state.engine.in_flight == 0


async def wake(state: State) -> None:
    """As it was when it fell asleep. Whoever comes meanwhile waits for the same."""
    await change(state, Changing(what="load", name=state.model_or_raise().name), lambda _tell: awaken(state))


async def _doze(state: State) -> None:
    if not is_due(state):
        return  # somebody came while this waited for its turn
    before = state.engine.restorable
    await state.engine.unload()
    state.asleep = before
    state.settle("asleep")
    log.info("lifecycle.asleep", model=state.model_or_raise().name)


async def awaken(state: State) -> None:
    """Within a change. Raises what `load` and `attach` raise; it sleeps on then, and who asks next may have luck."""
    if state.asleep is None:
        return
    state.settle("loading")
    try:
        await state.engine.bring_back(state.asleep)
    except MillmError:
        state.settle("asleep")
        raise
    state.engine.set_active(state.active.steering if state.active else None)
    state.asleep = None
    state.settle("ready")
