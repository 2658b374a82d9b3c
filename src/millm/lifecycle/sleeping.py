"""A model that nobody asks leaves the memory after `MILLM_KEEP_ALIVE`, and comes back with the next request."""

import asyncio

import structlog

from millm.errors import MillmError
from millm.lifecycle.changes import run_change
from millm.state import State
from millm.status import ChangeInProgress

log = structlog.get_logger()

TICK_SECONDS = 0.5


async def unload_when_idle(state: State) -> None:
    """Until it is cancelled."""
    while True:
        await asyncio.sleep(TICK_SECONDS)
        if is_unload_due(state):
            await run_change(
                state,
                ChangeInProgress(what="unload", name=state.model_or_raise().name),
                lambda _tell: _put_to_sleep(state),
            )


def seconds_until_unload(state: State) -> float | None:
    """Until it leaves, if nobody asks it anything; None: it stays, or is gone."""
    if state.settings.keep_alive < 0 or state.status != "ready":
        return None
    return max(0.0, state.settings.keep_alive - state.engine.idle_seconds)


def is_unload_due(state: State) -> bool:
    return seconds_until_unload(state) == 0.0 and state.engine.in_flight == 0


async def wake_model(state: State) -> None:
    """As it was when it fell asleep. Whoever comes meanwhile waits for the same."""
    await run_change(
        state, ChangeInProgress(what="load", name=state.model_or_raise().name), lambda _tell: wake_within_change(state)
    )


async def _put_to_sleep(state: State) -> None:
    if not is_unload_due(state):
        return  # somebody came while this waited for its turn
    before = state.engine.snapshot
    await state.engine.unload()
    state.asleep = before
    state.set_phase("asleep")
    log.info("lifecycle.asleep", model=state.model_or_raise().name)


async def wake_within_change(state: State) -> None:
    """Within a change. Raises what `load` and `attach` raise; it sleeps on then, and who asks next may have luck."""
    if state.asleep is None:
        return
    state.set_phase("loading")
    try:
        await state.engine.restore_snapshot(state.asleep)
    except MillmError:
        state.set_phase("asleep")
        raise
    state.engine.set_active_steering(state.active.steering if state.active else None)
    state.asleep = None
    state.set_phase("ready")
