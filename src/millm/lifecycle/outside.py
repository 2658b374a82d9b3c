"""Where something is that the library does not know: a folder named on the command line."""

from collections.abc import Callable
from pathlib import Path

from millm.errors import MillmError
from millm.hub.locate import LocalCheckpoint


def external_folder(location: LocalCheckpoint, locate: Callable[[str], LocalCheckpoint]) -> str | None:
    """What to remember; None: the library finds it there by its name."""
    try:
        known = locate(location.name).folder
    except MillmError:
        return str(location.folder)
    return None if known == location.folder else str(location.folder)


def external_location(name: str, folder: str | None) -> LocalCheckpoint | None:
    """What `folder_of` remembered; None: the library knows where it is."""
    return LocalCheckpoint(name, Path(folder)) if folder else None
