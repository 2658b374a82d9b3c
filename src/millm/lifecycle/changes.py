"""One change at a time, each to its end even when whoever asked for it has gone.

Where something is that the library does not know: a folder named on the command line.

A model that nobody asks leaves the memory after `MILLM_KEEP_ALIVE`, and comes back with the next request.
"""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import structlog
from msgspec.structs import replace

from millm.engine.messages import Progress
from millm.errors import MillmError, ShuttingDown
from millm.events import ChangeProgress
from millm.hub.locate import LocalCheckpoint
from millm.state import State
from millm.status import Cause, ChangeInProgress

Result = TypeVar("Result")
_POLL_SECONDS = 0.05
ProgressCallback = Callable[[Progress], None]
"""Where a change says how far it has come."""


async def wait_until_started(state: State) -> None:
    """Until all is there that the server was started with: what people ask for comes after it, not between.

    Raises ShuttingDown.
    """
    while state.is_starting:
        if state.drain_gate.is_draining:
            raise ShuttingDown("the server is being stopped before it was ready; try again when it is back")
        await asyncio.sleep(_POLL_SECONDS)


async def run_change(
    state: State,
    change_info: ChangeInProgress,
    work: Callable[[ProgressCallback], Awaitable[Result]],
    on_progress: ProgressCallback | None = None,
) -> Result:
    """Wait for the changes before, then do it. Raises what `work` raises; that is then told as the state's cause."""
    task = asyncio.create_task(_run_exclusively(state, change_info, work, on_progress))
    state.tasks.add(task)
    task.add_done_callback(state.tasks.discard)
    return await asyncio.shield(task)


async def _run_exclusively(
    state: State,
    change_info: ChangeInProgress,
    work: Callable[[ProgressCallback], Awaitable[Result]],
    on_progress: ProgressCallback | None,
) -> Result:
    async with state.change_lock:
        await state.engine.wait_until_restored()
        state.changing = change_info
        state.publish_status()
        try:
            result = await work(_progress_publisher(state, on_progress))
        except MillmError as error:
            state.cause = Cause(code=error.code, message=error.message)
            raise
        else:
            state.cause = None
            return result
        finally:
            state.changing = None
            state.publish_status()


def _progress_publisher(state: State, on_progress: ProgressCallback | None) -> ProgressCallback:
    def tell(progress: Progress) -> None:
        if state.changing is None:
            return
        state.changing = replace(state.changing, stage=progress.stage, done=progress.done, total=progress.total)
        state.events.publish(
            ChangeProgress(what=state.changing.name, stage=progress.stage, done=progress.done, total=progress.total)
        )
        if on_progress:
            on_progress(progress)

    return tell


def external_folder(location: LocalCheckpoint, locate: Callable[[str], LocalCheckpoint]) -> str | None:
    """What to remember; None: the library finds it there by its name."""
    try:
        known = locate(location.name).folder
    except MillmError:
        return str(location.folder)
    return None if known == location.folder else str(location.folder)


def external_location(name: str, folder: str | None) -> LocalCheckpoint | None:
    """What `folder_of` remembered; None: the library knows where it is."""
    return LocalCheckpoint(name, Path(folder)) if folder else None


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
