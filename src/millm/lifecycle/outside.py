"""Where something is that the library does not know: a folder named on the command line."""

from collections.abc import Callable
from pathlib import Path

from millm.errors import MillmError
from millm.hub.locate import Located


def folder_of(found: Located, locate: Callable[[str], Located]) -> str | None:
    """What to remember; None: the library finds it there by its name."""
    try:
        known = locate(found.name).folder
    except MillmError:
        return str(found.folder)
    return None if known == found.folder else str(found.folder)


def located(name: str, folder: str | None) -> Located | None:
    """What `folder_of` remembered; None: the library knows where it is."""
    return Located(name, Path(folder)) if folder else None
