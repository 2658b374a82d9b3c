"""A profile as `/api/profiles` tells it: beside what it says, whether it is active and whether it could be."""

from millm.profiles.binding import misfit
from millm.profiles.contract import Profile
from millm.profiles.entry import ProfileEntry, ProfileTold
from millm.profiles.store import Stored
from millm.state import State


def entry_of(state: State, stored: Stored) -> ProfileEntry:
    profile, model = stored.profile, state.model
    why_not = misfit(model, state.saes, profile)
    return ProfileEntry(
        name=profile.name,
        description=profile.description,
        model=profile.model.repo_id if profile.model else None,
        saes=_saes(profile),
        features=len(profile.features),
        is_active=state.active is not None and state.active.profile == profile.name,
        misfit=why_not,
        model_id=f"{model.name}:{profile.name}" if model and why_not is None else None,
        created=stored.created,
        updated=stored.updated,
        source=profile.provenance.source if profile.provenance else None,
    )


def profile_told(state: State, stored: Stored) -> ProfileTold:
    whole = stored.profile.model_dump(mode="json", exclude_none=True)
    return ProfileTold(profile=whole, entry=entry_of(state, stored))


def _saes(profile: Profile) -> tuple[str, ...]:
    """By the names that the profile gives them."""
    stated = [sae.called or sae.hook_point or "" for sae in profile.saes]
    return tuple(stated or sorted({feature.sae for feature in profile.features if feature.sae}))
