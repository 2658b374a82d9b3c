"""What steers every request that does not say otherwise: made active, remembered, and dropped with its SAE."""

import asyncio
from collections import deque
from collections.abc import Container

from msgspec.structs import replace

from millm import desired
from millm.desired import Desired
from millm.errors import InvalidRequest, MillmError, NotStored
from millm.events import SteeringChanged
from millm.profiles.active import Active
from millm.profiles.selection import active, racked
from millm.sae.steering import Steering
from millm.state import State


async def activate_profile(state: State, name: str) -> None:
    """Raises what `selection.active` raises."""
    await activate(state, active(state, profile=name))


async def activate(state: State, wanted: Active | None) -> None:
    """From now on, and from the next token of the answers that are being made; None is the base model.

    Can be taken back with `undo`. Raises NotStored; what was active before is active then.
    """
    before = state.active
    await _switch(state, wanted)
    if before != wanted:
        state.edits.changed(before)


async def undo(state: State) -> None:
    """What was active before the last change. Raises InvalidRequest where there is none, and as `activate`."""
    await _step(state, state.edits.done, state.edits.undone, "no change of the steering can be taken back")


async def redo(state: State) -> None:
    """What was taken back last. Raises as `undo` does."""
    await _step(state, state.edits.undone, state.edits.done, "no change of the steering was taken back")


async def _step(state: State, away: deque[Active | None], back: deque[Active | None], none: str) -> None:
    if not away:
        raise InvalidRequest(none)
    before, wanted = state.active, _anew(state, away[-1])
    await _switch(state, wanted)
    away.pop()
    back.append(before)


async def _switch(state: State, wanted: Active | None) -> None:
    before = state.active
    steer(state, wanted)
    try:
        await remember(state, state.desired)
    except NotStored:
        steer(state, before)
        raise


def steer(state: State, wanted: Active | None) -> None:
    """As `activate`, before it is remembered."""
    state.active = wanted
    state.edits.version += 1
    steering = wanted.steering if wanted else None
    state.engine.set_active(steering)
    state.events.publish(
        SteeringChanged(
            version=state.edits.version,
            profile=wanted.profile if wanted else None,
            fingerprint=steering.fingerprint if steering else None,
        )
    )


def unsteer(state: State, saes: Container[str]) -> None:
    """One of these goes: an active steering that uses it would be applied in part, and is not applied at all."""
    if state.active and any(feature.sae in saes for feature in state.active.asked.features):
        steer(state, None)


def steer_anew(state: State) -> None:
    """An SAE was attached again under its name: the active steering means this one from now on, or nothing."""
    current = state.active
    if current is None or current.steering is None or _is_meant(state, current.steering):
        return
    if any(tap.sae not in state.saes for tap in current.steering.taps):
        return  # it goes on waiting for the other
    try:
        steer(state, _anew(state, current))
    except MillmError:
        steer(state, None)


def _anew(state: State, was: Active | None) -> Active | None:
    """For what is attached by now. Raises what `selection.active` raises."""
    if was is None:
        return None
    return racked(
        state,
        was.asked,
        profile=was.profile,
        muted=was.muted,
        solo=was.solo,
        on=was.on,
        is_modified=was.is_modified,
    )


async def remember(state: State, wanted: Desired) -> None:
    """With what is active now. When this returns, it survives whatever happens. Raises NotStored."""
    state.desired = with_active(wanted, state.active)
    if state.is_restoring:
        return  # until all of it is there, what was acknowledged stays what it was
    async with state.writing:
        try:
            await asyncio.to_thread(desired.write, state.hub.database, state.desired)
        except NotStored:
            state.desired = await asyncio.to_thread(desired.read, state.hub.database)
            raise


def with_active(wanted: Desired, current: Active | None) -> Desired:
    if current is None:
        return replace(wanted, profile=None, steering=None, muted=(), solo=(), on=True)
    says_itself = current.is_modified or current.profile is None
    return replace(
        wanted,
        profile=current.profile,
        steering=current.asked.model_dump(mode="json") if says_itself else None,
        muted=tuple(sorted(current.muted, key=repr)),
        solo=tuple(sorted(current.solo, key=repr)),
        on=current.on,
    )


def _is_meant(state: State, steering: Steering) -> bool:
    return all(tap.sae in state.saes and state.saes[tap.sae].facts.id == tap.attachment for tap in steering.taps)
