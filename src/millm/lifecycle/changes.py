"""Serialises changes and runs each to completion, even after its client has disconnected; idle unload and wake-up."""

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

log = structlog.get_logger()
Result = TypeVar("Result")
ProgressCallback = Callable[[Progress], None]
TICK_SECONDS = 0.5
_POLL_SECONDS = 0.05


async def wait_until_started(state: State) -> None:
    """Wait until the start-up model, SAEs and profile are loaded. Raises ShuttingDown."""
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
    """Run `work` after all earlier changes. Raises what `work` raises, which also becomes `state.cause`."""
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
    def publish(progress: Progress) -> None:
        if state.changing is None:
            return
        state.changing = replace(state.changing, stage=progress.stage, done=progress.done, total=progress.total)
        state.events.publish(
            ChangeProgress(what=state.changing.name, stage=progress.stage, done=progress.done, total=progress.total)
        )
        if on_progress:
            on_progress(progress)

    return publish


def external_folder(location: LocalCheckpoint, locate: Callable[[str], LocalCheckpoint]) -> str | None:
    """The folder to store for a checkpoint outside the library; None where the library locates it by name."""
    try:
        known = locate(location.name).folder
    except MillmError:
        return str(location.folder)
    return None if known == location.folder else str(location.folder)


def external_location(name: str, folder: str | None) -> LocalCheckpoint | None:
    """The location of a stored `external_folder`; None where the library locates it."""
    return LocalCheckpoint(name, Path(folder)) if folder else None


async def unload_when_idle(state: State) -> None:
    """Unload the model after `MILLM_KEEP_ALIVE` seconds without a request. Runs until cancelled."""
    while True:
        await asyncio.sleep(TICK_SECONDS)
        if is_unload_due(state):
            await run_change(
                state,
                ChangeInProgress(what="unload", name=state.model_or_raise().name),
                lambda _: _put_to_sleep(state),
            )


def seconds_until_unload(state: State) -> float | None:
    """Seconds until the idle unload; None where the model stays or is not in memory."""
    if state.settings.keep_alive < 0 or state.status != "ready":
        return None
    return max(0.0, state.settings.keep_alive - state.engine.idle_seconds)


def is_unload_due(state: State) -> bool:
    return seconds_until_unload(state) == 0.0 and state.engine.in_flight == 0


async def wake_model(state: State) -> None:
    """Restore the model and SAEs of before the idle unload; concurrent callers wait for one load."""
    await run_change(
        state, ChangeInProgress(what="load", name=state.model_or_raise().name), lambda _: wake_within_change(state)
    )


async def _put_to_sleep(state: State) -> None:
    if not is_unload_due(state):
        return  # a request came while this change waited
    before = state.engine.snapshot
    await state.engine.unload()
    state.asleep = before
    state.set_phase("asleep")
    log.info("lifecycle.asleep", model=state.model_or_raise().name)


async def wake_within_change(state: State) -> None:
    """Wake the model inside a running change. Raises what `load` and `attach` raise; the model then stays asleep."""
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
