"""Profiles are added, changed and deleted: with what is active, if one of them is, and both or neither."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

from millm.desired import Desired, written
from millm.errors import Conflict, ProfileActive, ProfileNameTaken
from millm.events import ProfilesChanged
from millm.lifecycle.steering import steer, with_active
from millm.profiles.active import Active, knob_of
from millm.profiles.contract import Profile
from millm.profiles.names import key
from millm.profiles.selection import applied, racked
from millm.profiles.store import Also, Stored
from millm.state import State

Told = TypeVar("Told")


async def add(state: State, profile: Profile) -> Stored:
    """Raises ProfileNameTaken or NotStored."""
    stored = await asyncio.to_thread(state.profiles.add, profile)
    state.events.publish(ProfilesChanged(name=profile.name, what="added"))
    return stored


async def change(state: State, name: str, profile: Profile) -> Stored:
    """Its name too, if `profile` has another. The active one is applied anew, in the same moment.

    Raises ProfileNotFound, ProfileNameTaken, NotStored; or, if it is active and could not be any more, what
    `selection.active` raises. Nothing has changed then.
    """
    before = state.profiles.stored(name).profile
    current = state.active
    wanted = _anew(state, current, before, profile) if current and current.profile == before.name else current

    def store(also: Also | None) -> Stored:
        return state.profiles.replace(before.name, profile, also)

    stored = await _stored(state, store, wanted)
    was = before.name if before.name != profile.name else None
    state.events.publish(ProfilesChanged(name=profile.name, what="changed", was=was))
    return stored


async def delete(state: State, name: str, *, force: bool = False) -> None:
    """`force`: the active one is turned off with it. Raises ProfileNotFound, ProfileActive or NotStored."""
    found = state.profiles.stored(name).profile
    current = state.active
    is_active = current is not None and current.profile == found.name
    if is_active and not force:
        raise ProfileActive(
            f"profile {found.name!r} steers the server; turn it off first, or delete it with `force=true`"
        )

    def remove(also: Also | None) -> None:
        state.profiles.delete(found.name, also)

    await _stored(state, remove, None if is_active else current)
    state.events.publish(ProfilesChanged(name=found.name, what="deleted"))


async def save(state: State, profile: Profile, *, overwrite: bool = False) -> Stored:
    """What steers the server, which `profile` says, has its name from now on.

    Raises ProfileNameTaken, NotStored, or Conflict where nothing steers.
    """
    current = state.active
    if current is None:
        raise Conflict("nothing steers the server that could be saved; steer it first, or send a whole profile")
    is_less = len(profile.features) < len(current.asked.features)
    known = key(profile.name) in {key(one.name) for one in state.profiles.all()}
    if known and not overwrite:
        raise ProfileNameTaken(
            f"there is a profile named {profile.name!r} already; choose another name, or send `overwrite`",
            param="name",
        )

    def store(also: Also | None) -> Stored:
        return state.profiles.replace(profile.name, profile, also) if known else state.profiles.add(profile, also)

    stored = await _stored(state, store, replace(current, profile=profile.name, is_modified=is_less))
    state.events.publish(ProfilesChanged(name=profile.name, what="changed" if known else "added"))
    return stored


def _anew(state: State, current: Active, before: Profile, profile: Profile) -> Active | None:
    """The active one, as the profile says it from now on; knobs that are muted stay so. Raises as `applied` does."""
    if (before.steering, before.saes, before.model) == (profile.steering, profile.saes, profile.model):
        return replace(current, profile=profile.name)
    asked = applied(state, profile).asked
    knobs = {knob_of(feature) for feature in asked.features}
    muted, solo = current.muted & knobs, current.solo & knobs
    return racked(state, asked, profile=profile.name, muted=muted, solo=solo, on=current.on)


async def _stored(state: State, store: Callable[[Also | None], Told], wanted: Active | None) -> Told:
    """What `store` writes, and what is to be active then, in one transaction."""
    before = state.active
    if wanted == before:
        return await asyncio.to_thread(store, None)
    async with state.writing:
        desired: Desired = with_active(state.desired, wanted)
        told = await asyncio.to_thread(store, written(desired))
        if state.active is before:  # or somebody has changed it meanwhile, who is waiting to write that
            state.desired = desired
            steer(state, wanted)
            state.edits.changed(before)
    return told
