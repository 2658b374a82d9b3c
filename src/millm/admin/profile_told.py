"""A profile as `/api/profiles` tells it: beside what it says, whether it is active and whether it could be."""

from millm.profiles import store
from millm.profiles.resolve import incompatibility
from millm.profiles.store import ProfileDetail, ProfileEntry, StoredProfile
from millm.state import State


def profile_entry(state: State, stored: StoredProfile) -> ProfileEntry:
    return store.profile_entry(
        stored,
        is_active=state.active is not None and state.active.profile == stored.profile.name,
        incompatibility=incompatibility(state.model, state.saes, stored.profile),
        model=state.model.name if state.model else None,
    )


def profile_detail(state: State, stored: StoredProfile) -> ProfileDetail:
    whole = stored.profile.model_dump(mode="json", exclude_none=True)
    return ProfileDetail(profile=whole, entry=profile_entry(state, stored))
