"""What a request names is loaded for it: a model that sleeps, always; another of the library, where that is allowed."""

import asyncio

from millm.errors import ModelNotFound
from millm.lifecycle.models import load
from millm.lifecycle.sleeping import wake_model
from millm.state import State
from millm.status import ModelSpec


async def ensure_loaded(state: State, requested_model: str) -> None:
    """`asked`: what a request names as its `model`. Many that name the same one wait for one load.

    What cannot be had is left to whoever chooses next, which refuses it by name. Raises what `load` raises.
    """
    if state.is_starting:
        return
    if _is_loaded_model(state, requested_model):
        if state.asleep:
            await wake_model(state)
    elif state.settings.on_demand == "auto" and (found := await asyncio.to_thread(_library_id, state, requested_model)):
        await load(state, ModelSpec(id=found))


def _is_loaded_model(state: State, requested_model: str) -> bool:
    return (
        state.model is not None
        and requested_model.removeprefix(state.model.name)[:1] in ("", ":")
        and requested_model.startswith(state.model.name)
    )


def _library_id(state: State, requested_model: str) -> str | None:
    """The id in `id` or `id:profile`."""
    for name in (requested_model, requested_model.partition(":")[0]):
        try:
            return state.hub.library.model(name).id
        except ModelNotFound:
            continue
    return None
