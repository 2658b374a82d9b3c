"""What steers every request that does not say otherwise: made active, remembered, and dropped with its SAE."""

import asyncio
from collections.abc import Container

from msgspec.structs import replace

from millm import desired
from millm.desired import Desired
from millm.errors import MillmError, NotStored
from millm.events import SteeringChanged
from millm.profiles.selection import active
from millm.state import Active, State


async def activate_profile(state: State, name: str) -> None:
    """Raises what `selection.active` raises."""
    await activate(state, active(state, profile=name))


async def activate(state: State, wanted: Active | None) -> None:
    """From now on, and from the next token of the answers that are being made; None is the base model.

    Raises NotStored; what was active before is active then.
    """
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
    state.engine.set_active(wanted.steering if wanted else None)
    state.events.publish(
        SteeringChanged(
            profile=wanted.profile if wanted else None, fingerprint=wanted.steering.fingerprint if wanted else None
        )
    )


def unsteer(state: State, saes: Container[str]) -> None:
    """One of these goes: an active steering that uses it would be applied in part, and is not applied at all."""
    if state.active and any(tap.sae in saes for tap in state.active.steering.taps):
        steer(state, None)


def steer_anew(state: State) -> None:
    """An SAE was attached again under its name: the active steering means this one from now on, or nothing."""
    current = state.active
    if current is None or all(_is_meant(state, tap.sae, tap.attachment) for tap in current.steering.taps):
        return
    if any(tap.sae not in state.saes for tap in current.steering.taps):
        return  # it goes on waiting for the other
    try:
        steer(state, active(state, steering=None if current.profile else current.asked, profile=current.profile))
    except MillmError:
        steer(state, None)


async def remember(state: State, wanted: Desired) -> None:
    """With what is active now. When this returns, it survives whatever happens. Raises NotStored."""
    current = state.active
    state.desired = replace(
        wanted,
        profile=current.profile if current else None,
        steering=current.asked.model_dump(mode="json") if current and current.profile is None else None,
    )
    if state.is_restoring:
        return  # until all of it is there, what was acknowledged stays what it was
    async with state.writing:
        try:
            await asyncio.to_thread(desired.write, state.hub.database, state.desired)
        except NotStored:
            state.desired = await asyncio.to_thread(desired.read, state.hub.database)
            raise


def _is_meant(state: State, sae: str, attachment: str) -> bool:
    return sae in state.saes and state.saes[sae].facts.id == attachment
