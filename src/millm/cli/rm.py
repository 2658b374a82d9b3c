"""`millm rm`: delete a model or an SAE from the disk."""

import sys
from typing import Annotated

import typer

from millm.cli.door import find_entry, open_library
from millm.cli.options import ApiKey, Url, Yes
from millm.cli.output import stderr_console, stdout_console
from millm.cli.sheets import deletion_line, freed_line
from millm.errors import CannotStart


def remove(
    id: Annotated[str, typer.Argument(metavar="ID", help="As `millm list` shows it.", show_default=False)],
    yes: Yes = False,
    url: Url = None,
    api_key: ApiKey = None,
) -> None:
    """Delete a model or an SAE from the disk; says first what is freed and what stays.

    Example:

        millm rm google/gemma-2-2b

    Files that other models, SAEs or programs share stay. Of an imported folder only the link goes.
    """
    library = open_library(url, api_key)
    entry = find_entry(library, id)
    if entry.origin != "builtin":  # which is refused
        stderr_console().print(deletion_line(entry), markup=False, soft_wrap=True)
        _confirm(id, yes)
    stdout_console().print(freed_line(library.delete(entry)))


def _confirm(id: str, yes: bool) -> None:
    if yes:
        return
    if not sys.stdin.isatty():
        raise CannotStart(f"nobody is there to ask whether {id} may go; add --yes")
    typer.confirm("Delete it?", abort=True, err=True)
