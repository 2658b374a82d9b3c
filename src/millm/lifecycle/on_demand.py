"""What a request names is loaded for it: a model that sleeps, always; another of the library, where that is allowed."""

import asyncio

from millm.desired import WantedModel
from millm.errors import ModelNotFound
from millm.lifecycle.models import load
from millm.lifecycle.sleeping import wake
from millm.state import State


async def ready_for(state: State, asked: str) -> None:
    """`asked`: what a request names as its `model`. Many that name the same one wait for one load.

    What cannot be had is left to whoever chooses next, which refuses it by name. Raises what `load` raises.
    """
    if state.is_starting:
        return
    if _is_meant(state, asked):
        if state.asleep:
            await wake(state)
    elif state.settings.on_demand == "auto" and (found := await asyncio.to_thread(_in_library, state, asked)):
        await load(state, WantedModel(id=found))


def _is_meant(state: State, asked: str) -> bool:
    return (
        state.model is not None
        and asked.removeprefix(state.model.name)[:1] in ("", ":")
        and asked.startswith(state.model.name)
    )


def _in_library(state: State, asked: str) -> str | None:
    """The id in `id` or `id:profile`."""
    for name in (asked, asked.partition(":")[0]):
        try:
            return state.hub.library.model(name).id
        except ModelNotFound:
            continue
    return None
