"""A profile as lists show it: what it is about and whether it can be applied now, without its features."""

from typing import Any

import msgspec

from millm.profiles.contract import Profile
from millm.profiles.store import StoredProfile


class ProfileEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One profile of the list."""

    name: str
    description: str
    model: str | None
    """The one it was made for; None: it does not say."""
    saes: tuple[str, ...]
    """Those that it steers; none: it does not say."""
    features: int
    """How many."""
    is_active: bool
    """It steers the server."""
    misfit: str | None
    """Why it cannot be applied now; None: it can."""
    model_id: str | None
    """What a client asks for as `model` to have it applied; None: it cannot be now."""
    created: float
    """Seconds since 1970."""
    updated: float
    source: str | None
    """The tool that it comes from."""


class ProfilePage(msgspec.Struct, frozen=True, kw_only=True):
    """A part of the list, in the order of names."""

    profiles: tuple[ProfileEntry, ...]
    total: int
    """How many there are that were asked for."""


class ProfileDetail(msgspec.Struct, frozen=True, kw_only=True):
    """One profile, whole."""

    profile: dict[str, Any]
    """As a file has it."""
    entry: ProfileEntry


def profile_entry(
    stored: StoredProfile, *, is_active: bool, incompatibility: str | None, model: str | None
) -> ProfileEntry:
    """`model`: the name of the loaded one, if there is one."""
    profile = stored.profile
    return ProfileEntry(
        name=profile.name,
        description=profile.description,
        model=profile.model.repo_id if profile.model else None,
        saes=_sae_names(profile),
        features=len(profile.features),
        is_active=is_active,
        misfit=incompatibility,
        model_id=f"{model}:{profile.name}" if model and incompatibility is None else None,
        created=stored.created,
        updated=stored.updated,
        source=profile.provenance.source if profile.provenance else None,
    )


def _sae_names(profile: Profile) -> tuple[str, ...]:
    """By the names that the profile gives them."""
    stated = [sae.alias or sae.hook_point or "" for sae in profile.saes]
    return tuple(stated or sorted({feature.sae for feature in profile.features if feature.sae}))
