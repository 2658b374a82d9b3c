"""Local folders in the library: a symbolic link each, under the name that clients use. The folder stays where it is."""

import re
from pathlib import Path

from millm.errors import Conflict, InvalidRequest

_NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,95}", re.ASCII)


def check_library_name(name: str) -> None:
    """Raises InvalidRequest."""
    if not _NAME.fullmatch(name):
        raise InvalidRequest(
            f"{name[:100]!r} cannot be a name in the library: 1 to 96 letters, digits, '.', '_' or '-',"
            " a letter or digit first; give another with --name",
            param="name",
        )


def add_link(parent: Path, name: str, folder: Path) -> Path:
    """Raises Conflict where the name is taken."""
    parent.mkdir(parents=True, exist_ok=True)
    link = parent / name
    try:
        link.symlink_to(folder.resolve(), target_is_directory=True)
    except FileExistsError as error:
        raise Conflict(f"the library has a {name!r} already; give another name with --name") from error
    return link
