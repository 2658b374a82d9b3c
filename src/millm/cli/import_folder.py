"""`millm import`: add a folder of yours to the library, without copying it."""

from pathlib import Path
from typing import Annotated

import typer

from millm.cli.library_here import LocalLibrary
from millm.cli.output import stdout_console
from millm.cli.sheets import model_details, sae_details
from millm.hub.entries import ModelEntry
from millm.settings import Settings


def import_folder(
    folder: Annotated[Path, typer.Argument(metavar="PATH", help="With the files of a model, or of an SAE.")],
    name: Annotated[str | None, typer.Option(help="What to call it (default: the folder's name).")] = None,
    sae: Annotated[bool, typer.Option("--sae", help="It is an SAE.")] = False,
) -> None:
    """Add a folder of yours to the library. It is linked, not copied.

    Example:

        millm import ~/models/my-finetune --name mine

    Only here, never over HTTP: a server must not learn paths from outside.
    """
    entry = LocalLibrary(Settings.load()).add(folder, name, is_sae=sae)
    stdout_console().print(model_details(entry, 0) if isinstance(entry, ModelEntry) else sae_details(entry))
