"""A profile as `/api/profiles` tells it: beside what it says, whether it is active and whether it could be."""

from millm.profiles import entry
from millm.profiles.binding import incompatibility
from millm.profiles.entry import ProfileDetail, ProfileEntry
from millm.profiles.store import StoredProfile
from millm.state import State


def profile_entry(state: State, stored: StoredProfile) -> ProfileEntry:
    return entry.profile_entry(
        stored,
        is_active=state.active is not None and state.active.profile == stored.profile.name,
        incompatibility=incompatibility(state.model, state.saes, stored.profile),
        model=state.model.name if state.model else None,
    )


def profile_detail(state: State, stored: StoredProfile) -> ProfileDetail:
    whole = stored.profile.model_dump(mode="json", exclude_none=True)
    return ProfileDetail(profile=whole, entry=profile_entry(state, stored))
