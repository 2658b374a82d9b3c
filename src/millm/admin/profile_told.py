"""A profile as `/api/profiles` tells it: beside what it says, whether it is active and whether it could be."""

from millm.profiles import entry
from millm.profiles.binding import misfit
from millm.profiles.entry import ProfileEntry, ProfileTold
from millm.profiles.store import Stored
from millm.state import State


def entry_of(state: State, stored: Stored) -> ProfileEntry:
    return entry.entry_of(
        stored,
        is_active=state.active is not None and state.active.profile == stored.profile.name,
        misfit=misfit(state.model, state.saes, stored.profile),
        model=state.model.name if state.model else None,
    )


def profile_told(state: State, stored: Stored) -> ProfileTold:
    whole = stored.profile.model_dump(mode="json", exclude_none=True)
    return ProfileTold(profile=whole, entry=entry_of(state, stored))
