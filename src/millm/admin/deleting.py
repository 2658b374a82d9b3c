"""What may be deleted: nothing that is in memory, or on its way there."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from millm.errors import InUse
from millm.hub.jobs import ArtifactKind
from millm.state import State


@asynccontextmanager
async def deletion_guard(state: State, kind: ArtifactKind, id: str) -> AsyncIterator[None]:
    """While nobody loads or attaches it. Raises InUse."""
    _refuse_in_use(state, kind, id)
    if state.change_lock.locked():  # by another model or SAE, which may take minutes
        yield
        return
    async with state.change_lock:
        _refuse_in_use(state, kind, id)
        yield


def is_loaded(state: State, id: str) -> bool:
    return state.model is not None and state.model.name == id


def _refuse_in_use(state: State, kind: ArtifactKind, id: str) -> None:
    if kind == "model" and is_loaded(state, id):
        raise InUse(f"{id} is loaded; unload it first")
    if kind == "sae" and id in state.saes:
        raise InUse(f"{id} is attached; detach it first")
    if state.changing and state.changing.name == id:
        raise InUse(f"{id} is about to be used ({state.changing.what}); wait for that, or give it up")
