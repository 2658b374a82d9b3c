"""One change at a time, each to its end even when whoever asked for it has gone."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from msgspec.structs import replace

from millm.engine.messages import Progress
from millm.errors import MillmError, ShuttingDown
from millm.events import ChangeProgress
from millm.state import State
from millm.status import Cause, Changing

Result = TypeVar("Result")
_TICK_SECONDS = 0.05

Tell = Callable[[Progress], None]
"""Where a change says how far it has come."""


async def started(state: State) -> None:
    """Until all is there that the server was started with: what people ask for comes after it, not between.

    Raises ShuttingDown.
    """
    while state.is_starting:
        if state.doors.are_closing:
            raise ShuttingDown("the server is being stopped before it was ready; try again when it is back")
        await asyncio.sleep(_TICK_SECONDS)


async def change(
    state: State, what: Changing, work: Callable[[Tell], Awaitable[Result]], on_progress: Tell | None = None
) -> Result:
    """Wait for the changes before, then do it. Raises what `work` raises; that is then told as the state's cause."""
    task = asyncio.create_task(_alone(state, what, work, on_progress))
    state.tasks.add(task)
    task.add_done_callback(state.tasks.discard)
    return await asyncio.shield(task)


async def _alone(
    state: State, what: Changing, work: Callable[[Tell], Awaitable[Result]], on_progress: Tell | None
) -> Result:
    async with state.changes:
        await state.engine.settled()
        state.changing = what
        state.tell_status()
        try:
            result = await work(_telling(state, on_progress))
        except MillmError as error:
            state.cause = Cause(code=error.code, message=error.message)
            raise
        else:
            state.cause = None
            return result
        finally:
            state.changing = None
            state.tell_status()


def _telling(state: State, on_progress: Tell | None) -> Tell:
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
