"""One change at a time, each to its end even when whoever asked for it has gone."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from msgspec.structs import replace

from millm.engine.messages import Progress
from millm.errors import MillmError, ShuttingDown
from millm.events import ChangeProgress
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
