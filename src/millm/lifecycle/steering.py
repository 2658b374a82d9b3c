"""What steers every request that does not say otherwise: made active, remembered, and dropped with its SAE.

Profiles are added, changed and deleted: with what is active, if one of them is, and both or neither.
"""

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
from millm.profiles.schema import Profile, name_key
from millm.profiles.store import ExtraWrite, StoredProfile
from millm.sae.steering import Steering
from millm.state import State
from millm.status import DesiredState, desired_writer


async def activate_profile(state: State, name: str) -> None:
    """Raises what `selection.active` raises."""
    await activate(state, resolve_active(state, profile=name))


async def activate(state: State, new: ActiveSteeringState | None) -> None:
    """From now on, and from the next token of the answers that are being made; None is the base model.

    Can be taken back with `undo`. Raises NotStored; what was active before is active then.
    """
    before = state.active
    await _set_and_store_active(state, new)
    if before != new:
        state.edits.record(before)


async def undo(state: State) -> None:
    """What was active before the last change. Raises InvalidRequest where there is none, and as `activate`."""
    await _move_edit(
        state, state.edits.undo_stack, state.edits.redo_stack, "no change of the steering can be taken back"
    )


async def redo(state: State) -> None:
    """What was taken back last. Raises as `undo` does."""
    await _move_edit(state, state.edits.redo_stack, state.edits.undo_stack, "no change of the steering was taken back")


async def _move_edit(
    state: State,
    source: deque[ActiveSteeringState | None],
    destination: deque[ActiveSteeringState | None],
    message: str,
) -> None:
    if not source:
        raise InvalidRequest(message)
    before, wanted = state.active, _rebuild_active(state, source[-1])
    await _set_and_store_active(state, wanted)
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
    """As `activate`, before it is remembered."""
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
    """One of these goes: an active steering that uses it would be applied in part, and is not applied at all."""
    if state.active and any(feature.sae in saes for feature in state.active.request.features):
        set_active(state, None)


def rebind_active(state: State) -> None:
    """An SAE was attached again under its name: the active steering means this one from now on, or nothing."""
    current = state.active
    if current is None or current.steering is None or _is_bound(state, current.steering):
        return
    if any(tap.sae not in state.saes for tap in current.steering.by_sae):
        return  # it goes on waiting for the other
    try:
        set_active(state, _rebuild_active(state, current))
    except MillmError:
        set_active(state, None)


def _rebuild_active(state: State, previous: ActiveSteeringState | None) -> ActiveSteeringState | None:
    """For what is attached by now. Raises what `selection.active` raises."""
    if previous is None:
        return None
    return build_active(
        state,
        previous.request,
        profile=previous.profile,
        muted=previous.muted,
        solo=previous.solo,
        on=previous.on,
        is_modified=previous.is_modified,
    )


async def store_desired(state: State, desired_state: DesiredState) -> None:
    """With what is active now. When this returns, it survives whatever happens. Raises NotStored."""
    state.desired = with_active(desired_state, state.active)
    if state.is_restoring:
        return  # until all of it is there, what was acknowledged stays what it was
    async with state.write_lock:
        try:
            await asyncio.to_thread(status.write_desired, state.hub.database, state.desired)
        except NotStored:
            state.desired = await asyncio.to_thread(status.read_desired, state.hub.database)
            raise


def with_active(desired_state: DesiredState, current: ActiveSteeringState | None) -> DesiredState:
    if current is None:
        return msgspec.structs.replace(desired_state, profile=None, steering=None, muted=(), solo=(), on=True)
    says_itself = current.is_modified or current.profile is None
    return msgspec.structs.replace(
        desired_state,
        profile=current.profile,
        steering=current.request.model_dump(mode="json") if says_itself else None,
        muted=tuple(sorted(current.muted, key=repr)),
        solo=tuple(sorted(current.solo, key=repr)),
        on=current.on,
    )


def _is_bound(state: State, steering: Steering) -> bool:
    return all(tap.sae in state.saes and state.saes[tap.sae].facts.id == tap.attachment for tap in steering.by_sae)


Result = TypeVar("Result")


async def create_profile(state: State, profile: Profile) -> StoredProfile:
    """Raises ProfileNameTaken or NotStored."""
    stored = await asyncio.to_thread(state.profiles.add, profile)
    state.events.publish(ProfilesChanged(name=profile.name, what="added"))
    return stored


async def update_profile(state: State, name: str, profile: Profile) -> StoredProfile:
    """Its name too, if `profile` has another. The active one is applied anew, in the same moment.

    Raises ProfileNotFound, ProfileNameTaken, NotStored; or, if it is active and could not be any more, what
    `selection.active` raises. Nothing has changed then.
    """
    before = state.profiles.find_stored(name).profile
    current = state.active
    wanted = (
        _reapply_profile(state, current, before, profile) if current and current.profile == before.name else current
    )

    def store(also: ExtraWrite | None) -> StoredProfile:
        return state.profiles.replace(before.name, profile, also)

    stored = await _store_with_active(state, store, wanted)
    was = before.name if before.name != profile.name else None
    state.events.publish(ProfilesChanged(name=profile.name, what="changed", was=was))
    return stored


async def remove_profile(state: State, name: str, *, force: bool = False) -> None:
    """`force`: the active one is turned off with it. Raises ProfileNotFound, ProfileActive or NotStored."""
    found = state.profiles.find_stored(name).profile
    current = state.active
    is_active = current is not None and current.profile == found.name
    if is_active and not force:
        raise ProfileActive(
            f"profile {found.name!r} steers the server; turn it off first, or delete it with `force=true`"
        )

    def remove(also: ExtraWrite | None) -> None:
        state.profiles.delete(found.name, also)

    await _store_with_active(state, remove, None if is_active else current)
    state.events.publish(ProfilesChanged(name=found.name, what="deleted"))


async def save_active_profile(state: State, profile: Profile, *, overwrite: bool = False) -> StoredProfile:
    """What steers the server, which `profile` says, has its name from now on.

    Raises ProfileNameTaken, NotStored, or Conflict where nothing steers.
    """
    current = state.active
    if current is None:
        raise Conflict("nothing steers the server that could be saved; steer it first, or send a whole profile")
    is_less = len(profile.features) < len(current.request.features)
    known = name_key(profile.name) in {name_key(one.name) for one in state.profiles.all()}
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
    """The active one, as the profile says it from now on; knobs that are muted stay so. Raises as `applied` does."""
    if (before.steering, before.saes, before.model) == (profile.steering, profile.saes, profile.model):
        return replace(current, profile=profile.name)
    asked = active_from_profile(state, profile).request
    knobs = {feature_key(feature) for feature in asked.features}
    muted, solo = current.muted & knobs, current.solo & knobs
    return build_active(state, asked, profile=profile.name, muted=muted, solo=solo, on=current.on)


async def _store_with_active(
    state: State, store: Callable[[ExtraWrite | None], Result], new: ActiveSteeringState | None
) -> Result:
    """What `store` writes, and what is to be active then, in one transaction."""
    before = state.active
    if new == before:
        return await asyncio.to_thread(store, None)
    async with state.write_lock:
        desired: DesiredState = with_active(state.desired, new)
        told = await asyncio.to_thread(store, desired_writer(desired))
        if state.active is before:  # or somebody has changed it meanwhile, who is waiting to write that
            state.desired = desired
            set_active(state, new)
            state.edits.record(before)
    return told
