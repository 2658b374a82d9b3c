"""Profiles are added, changed and deleted: with what is active, if one of them is, and both or neither."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

from millm.errors import Conflict, ProfileActive, ProfileNameTaken
from millm.events import ProfilesChanged
from millm.lifecycle.steering import set_active, with_active
from millm.profiles.active import ActiveSteeringState, feature_key
from millm.profiles.schema import Profile, name_key
from millm.profiles.selection import active_from_profile, build_active
from millm.profiles.store import ExtraWrite, StoredProfile
from millm.state import State
from millm.status import DesiredState, desired_writer

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
