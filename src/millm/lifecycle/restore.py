"""Restores the last acknowledged state after a start, and loads the model that a request names on demand."""

import asyncio
from collections.abc import Coroutine
from dataclasses import replace
from typing import Any

import structlog

from millm.errors import MillmError, ModelNotFound
from millm.lifecycle.changes import ProgressCallback, external_location, wake_model
from millm.lifecycle.models import load
from millm.lifecycle.saes import attach
from millm.lifecycle.selection import active_from_profile, build_active
from millm.lifecycle.steering import activate
from millm.profiles.active import ActiveSteeringState
from millm.profiles.schema import SteeringRequest
from millm.state import State
from millm.status import Cause, DesiredState, ModelSpec

log = structlog.get_logger()


async def ensure_loaded(state: State, requested_model: str) -> None:
    """Load the requested model on demand; concurrent requests share one load. Raises what `load` raises.

    An unknown model is left to `select`, which raises ModelNotFound.
    """
    if state.is_starting:
        return
    if _is_loaded_model(state, requested_model):
        if state.asleep:
            await wake_model(state)
    elif state.settings.on_demand == "auto" and (id := await asyncio.to_thread(_library_id, state, requested_model)):
        await load(state, ModelSpec(id=id))


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


async def restore(state: State, target: DesiredState, on_progress: ProgressCallback | None = None) -> None:
    """Restore as much of `target` as possible; the first failure becomes `state.cause` and is retried at next start.

    The steering is restored only if all SAEs are.
    """
    if target.model is None:
        state.set_phase("empty")
        return
    state.is_restoring = True
    failures = await _restore_all(state, target, on_progress)
    state.is_restoring = False
    state.desired = target
    if failures:
        state.cause = Cause(code=failures[0].code, message=f"not all is as it was before: {failures[0].message}")
    state.set_phase("ready" if state.model else "empty")


async def _restore_all(state: State, target: DesiredState, on_progress: ProgressCallback | None) -> list[MillmError]:
    """The failures."""
    assert target.model is not None
    location = external_location(target.model.id, target.folder)
    failures = await _attempt(load(state, target.model, location=location, on_progress=on_progress))
    if failures:
        return failures
    for sae in target.saes:
        location = external_location(sae.wanted.id, sae.folder)
        failures += await _attempt(attach(state, sae.wanted, location=location, on_progress=on_progress))
    return failures or await _attempt(_activate_stored(state, target))


async def _attempt(work: Coroutine[Any, Any, object]) -> list[MillmError]:
    try:
        await work
    except MillmError as error:
        log.error("lifecycle.not_restored", code=error.code, reason=error.message)
        return [error]
    return []


async def _activate_stored(state: State, target: DesiredState) -> None:
    if target.profile is None and target.steering is None:
        return
    if target.steering is not None:
        active = ActiveSteeringState(
            target.profile, SteeringRequest.model_validate(target.steering), is_modified=target.profile is not None
        )
    else:
        assert target.profile is not None
        active = active_from_profile(state, state.profiles.find(target.profile))
    active = replace(active, muted=frozenset(target.muted), solo=frozenset(target.solo), on=target.on)
    await activate(state, build_active(state, active))
