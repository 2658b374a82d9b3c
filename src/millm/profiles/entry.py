"""A profile as lists show it: what it is about and whether it can be applied now, without its features."""

import msgspec


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


class ProfileTold(msgspec.Struct, frozen=True, kw_only=True):
    """One profile, whole."""

    profile: dict[str, object]
    """As a file has it."""
    entry: ProfileEntry
