"""The profiles that can be applied now: found out once, until something is stored, loaded or attached."""

from collections.abc import Callable, Sequence

from millm.profiles.contract import Profile


class Menu:
    """Ten thousand profiles take a second to look through, and every client asks for the list of models."""

    def __init__(self) -> None:
        self._circumstances: tuple[object, ...] = ()
        self._fitting: Sequence[Profile] = ()

    def fitting(self, circumstances: tuple[object, ...], find: Callable[[], Sequence[Profile]]) -> Sequence[Profile]:
        """`circumstances`: all that the answer depends on; values that are replaced when they change."""
        if circumstances != self._circumstances:
            self._fitting = find()
            self._circumstances = circumstances
        return self._fitting
