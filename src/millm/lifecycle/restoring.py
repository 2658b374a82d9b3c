"""After a start: what was acknowledged last is loaded, attached and active again."""

from collections.abc import Coroutine
from typing import Any

import structlog

from millm.desired import Desired
from millm.errors import MillmError
from millm.lifecycle.changes import Tell
from millm.lifecycle.models import load
from millm.lifecycle.outside import located
from millm.lifecycle.saes import attach
from millm.lifecycle.steering import activate
from millm.profiles.contract import SteeringRequest
from millm.profiles.selection import active, racked
from millm.state import State
from millm.status import Cause

log = structlog.get_logger()


async def restore(state: State, wanted: Desired, on_progress: Tell | None = None) -> None:
    """As much of it as can be had; what cannot is told as the state's cause and tried again at the next start.

    Without one of its SAEs, nothing that was active is.
    """
    if wanted.model is None:
        state.settle("empty")
        return
    state.is_restoring = True
    failures = await _restored(state, wanted, on_progress)
    state.is_restoring = False
    state.desired = wanted
    if failures:
        state.cause = Cause(code=failures[0].code, message=f"not all is as it was before: {failures[0].message}")
    state.settle("ready" if state.model else "empty")


async def _restored(state: State, wanted: Desired, on_progress: Tell | None) -> list[MillmError]:
    """→ what went wrong."""
    assert wanted.model is not None
    where = located(wanted.model.id, wanted.folder)
    failures = await _attempt(load(state, wanted.model, located=where, on_progress=on_progress))
    if failures:
        return failures
    for sae in wanted.saes:
        where = located(sae.wanted.id, sae.folder)
        failures += await _attempt(attach(state, sae.wanted, located=where, on_progress=on_progress))
    return failures or await _attempt(_activate(state, wanted))


async def _attempt(work: Coroutine[Any, Any, object]) -> list[MillmError]:
    try:
        await work
    except MillmError as error:
        log.error("lifecycle.not_restored", code=error.code, reason=error.message)
        return [error]
    return []


async def _activate(state: State, wanted: Desired) -> None:
    if wanted.profile is None and wanted.steering is None:
        return
    asked = SteeringRequest.model_validate(wanted.steering) if wanted.steering else None
    made = active(state, profile=wanted.profile) if asked is None else racked(state, asked, profile=wanted.profile)
    if made is not None:
        made = racked(
            state,
            made.asked,
            profile=made.profile,
            muted=frozenset(wanted.muted),
            solo=frozenset(wanted.solo),
            on=wanted.on,
            is_modified=wanted.profile is not None and asked is not None,
        )
    await activate(state, made)
