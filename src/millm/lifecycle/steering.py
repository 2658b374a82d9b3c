"""Changes of the active steering and of the stored profiles; a change of both is one transaction."""

import asyncio
from collections import deque
from collections.abc import Callable, Container
from dataclasses import replace
from typing import TypeVar

import msgspec

from millm import status
from millm.errors import Conflict, InvalidRequest, MillmError, NotStored, ProfileActive, ProfileNameTaken
from millm.events import ProfilesChanged, SteeringChanged
from millm.lifecycle.selection import active_from_profile, build_active, resolve_active
from millm.profiles.active import ActiveSteeringState, feature_key
from millm.profiles.schema import Profile
from millm.profiles.store import ExtraWrite, StoredProfile
from millm.sae.steering import Steering
from millm.state import State
from millm.status import DesiredState, desired_writer

Result = TypeVar("Result")
NOTHING_ACTIVE_MESSAGE = "nothing steers the server that could be saved; steer it first, or send a whole profile"


async def activate_profile(state: State, name: str) -> None:
    """Raises what `resolve_active` raises."""
    await activate(state, resolve_active(state, profile=name))


async def activate(state: State, new: ActiveSteeringState | None) -> None:
    """Make `new` active, also for running answers from their next token; None is the base model.

    Raises NotStored, with the previous steering still active.
    """
    before = state.active
    await _set_and_store_active(state, new)
    if before != new:
        state.edits.record(before)


async def undo(state: State) -> None:
    """Raises InvalidRequest without a change to undo, and as `activate` does."""
    await _move_edit(state, state.edits.undo_stack, state.edits.redo_stack, "there is no steering change to undo")


async def redo(state: State) -> None:
    """Raises as `undo` does."""
    await _move_edit(state, state.edits.redo_stack, state.edits.undo_stack, "there is no steering change to redo")


async def _move_edit(
    state: State,
    source: deque[ActiveSteeringState | None],
    destination: deque[ActiveSteeringState | None],
    message: str,
) -> None:
    if not source:
        raise InvalidRequest(message)
    before, target = state.active, _rebuild_active(state, source[-1])
    await _set_and_store_active(state, target)
    source.pop()
    destination.append(before)


async def _set_and_store_active(state: State, new: ActiveSteeringState | None) -> None:
    before = state.active
    set_active(state, new)
    try:
        await store_desired(state, state.desired)
    except NotStored:
        set_active(state, before)
        raise


def set_active(state: State, new: ActiveSteeringState | None) -> None:
    """Make `new` active without storing it."""
    state.active = new
    state.edits.version += 1
    steering = new.steering if new else None
    state.engine.set_active_steering(steering)
    state.events.publish(
        SteeringChanged(
            version=state.edits.version,
            profile=new.profile if new else None,
            fingerprint=steering.fingerprint if steering else None,
        )
    )


def drop_steering_with(state: State, saes: Container[str]) -> None:
    """Deactivate a steering that uses one of the `saes`: it is never applied in part."""
    if state.active and any(feature.sae in saes for feature in state.active.request.features):
        set_active(state, None)


def rebind_active(state: State) -> None:
    """Resolve the active steering against SAEs attached again under the same name; deactivate it where that fails."""
    current = state.active
    if current is None or current.steering is None or _is_bound(state, current.steering):
        return
    if any(tap.sae not in state.saes for tap in current.steering.by_sae):
        return  # another of its SAEs is still missing
    try:
        set_active(state, _rebuild_active(state, current))
    except MillmError:
        set_active(state, None)


def _rebuild_active(state: State, previous: ActiveSteeringState | None) -> ActiveSteeringState | None:
    """Resolve `previous` against the SAEs attached now. Raises what `resolve_active` raises."""
    return None if previous is None else build_active(state, previous)


async def store_desired(state: State, desired_state: DesiredState) -> None:
    """Store `desired_state` with the active steering, durably. Raises NotStored."""
    state.desired = with_active(desired_state, state.active)
    if state.is_restoring:
        return  # the stored state stays until all of it is restored
    async with state.write_lock:
        try:
            await asyncio.to_thread(status.write_desired, state.hub.database, state.desired)
        except NotStored:
            state.desired = await asyncio.to_thread(status.read_desired, state.hub.database)
            raise


def with_active(desired_state: DesiredState, current: ActiveSteeringState | None) -> DesiredState:
    if current is None:
        return msgspec.structs.replace(desired_state, profile=None, steering=None, muted=(), solo=(), on=True)
    differs = current.is_modified or current.profile is None
    return msgspec.structs.replace(
        desired_state,
        profile=current.profile,
        steering=current.request.model_dump(mode="json") if differs else None,
        muted=tuple(sorted(current.muted, key=repr)),
        solo=tuple(sorted(current.solo, key=repr)),
        on=current.on,
    )


def _is_bound(state: State, steering: Steering) -> bool:
    return all(tap.sae in state.saes and state.saes[tap.sae].facts.id == tap.attachment for tap in steering.by_sae)


async def create_profile(state: State, profile: Profile) -> StoredProfile:
    """Raises ProfileNameTaken or NotStored."""
    stored = await asyncio.to_thread(state.profiles.add, profile)
    state.events.publish(ProfilesChanged(name=profile.name, what="added"))
    return stored


async def update_profile(state: State, name: str, profile: Profile) -> StoredProfile:
    """Replace, and perhaps rename, a profile; the active one is applied again in the same transaction.

    Raises ProfileNotFound, ProfileNameTaken, NotStored, or for the active profile what `resolve_active` raises;
    nothing changes then.
    """
    before = state.profiles.find_stored(name).profile
    current = state.active
    new = _reapply_profile(state, current, before, profile) if current and current.profile == before.name else current
    stored = await _store_with_active(state, lambda also: state.profiles.replace(before.name, profile, also), new)
    was = before.name if before.name != profile.name else None
    state.events.publish(ProfilesChanged(name=profile.name, what="changed", was=was))
    return stored


async def remove_profile(state: State, name: str, *, force: bool = False) -> None:
    """`force`: also deactivate the active one. Raises ProfileNotFound, ProfileActive or NotStored."""
    name = state.profiles.find_stored(name).profile.name
    current = state.active
    is_active = current is not None and current.profile == name
    if is_active and not force:
        raise ProfileActive(f"profile {name!r} steers the server; turn it off first, or delete it with `force=true`")
    await _store_with_active(state, lambda also: state.profiles.delete(name, also), None if is_active else current)
    state.events.publish(ProfilesChanged(name=name, what="deleted"))


async def save_active_profile(state: State, profile: Profile, *, overwrite: bool = False) -> StoredProfile:
    """Store the active steering as `profile`, and make it the active one.

    Raises ProfileNameTaken, NotStored, or Conflict without an active steering.
    """
    current = state.active
    if current is None:
        raise Conflict(NOTHING_ACTIVE_MESSAGE)
    is_less = len(profile.features) < len(current.request.features)
    known = state.profiles.has(profile.name)
    if known and not overwrite:
        raise ProfileNameTaken(
            f"there is a profile named {profile.name!r} already; choose another name, or send `overwrite`",
            param="name",
        )

    def store(also: ExtraWrite | None) -> StoredProfile:
        return state.profiles.replace(profile.name, profile, also) if known else state.profiles.add(profile, also)

    stored = await _store_with_active(state, store, replace(current, profile=profile.name, is_modified=is_less))
    state.events.publish(ProfilesChanged(name=profile.name, what="changed" if known else "added"))
    return stored


def _reapply_profile(
    state: State, current: ActiveSteeringState, before: Profile, profile: Profile
) -> ActiveSteeringState | None:
    """The active steering with the new content of its profile; muted features stay muted. Raises as
    `active_from_profile` does.
    """
    if (before.steering, before.saes, before.model) == (profile.steering, profile.saes, profile.model):
        return replace(current, profile=profile.name)
    request = active_from_profile(state, profile).request
    keys = {feature_key(feature) for feature in request.features}
    muted, solo = current.muted & keys, current.solo & keys
    return build_active(state, ActiveSteeringState(profile.name, request, muted=muted, solo=solo, on=current.on))


async def _store_with_active(
    state: State, store: Callable[[ExtraWrite | None], Result], new: ActiveSteeringState | None
) -> Result:
    """Write the profile change of `store` and the active steering `new` in one transaction."""
    before = state.active
    if new == before:
        return await asyncio.to_thread(store, None)
    async with state.write_lock:
        desired: DesiredState = with_active(state.desired, new)
        stored = await asyncio.to_thread(store, desired_writer(desired))
        if state.active is before:  # else a concurrent change waits for the lock and stores its own
            state.desired = desired
            set_active(state, new)
            state.edits.record(before)
    return stored
