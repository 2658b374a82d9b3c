"""The profiles that can be applied now: found out once, until something is stored, loaded or attached."""

from collections.abc import Callable, Sequence

from millm.profiles.contract import Profile


class ApplicableProfilesCache:
    """Ten thousand profiles take a second to look through, and every client asks for the list of models."""

    def __init__(self) -> None:
        self._dependencies: tuple[object, ...] = ()
        self._profiles: Sequence[Profile] = ()

    def get(self, dependencies: tuple[object, ...], compute: Callable[[], Sequence[Profile]]) -> Sequence[Profile]:
        """`circumstances`: all that the answer depends on; values that are replaced when they change."""
        if dependencies != self._dependencies:
            self._profiles = compute()
            self._dependencies = dependencies
        return self._profiles
