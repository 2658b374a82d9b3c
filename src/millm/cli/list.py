"""`millm list`: what is in the library."""

from typing import Annotated

import typer

from millm.cli.door import open_library
from millm.cli.options import ApiKey, AsJson, Url
from millm.cli.output import print_json, stdout_console
from millm.cli.tables import models_table, saes_table


def list_library(
    saes: Annotated[bool, typer.Option("--saes", help="The SAEs instead of the models.")] = False,
    as_json: AsJson = False,
    url: Url = None,
    api_key: ApiKey = None,
) -> None:
    """List the models of the library, or its SAEs.

    Example:

        millm list --saes

    Asks the running server; without one, looks at this disk: MILLM_HOME and Hugging Face's cache.
    """
    library = open_library(url, api_key)
    if as_json:
        print_json(library.saes() if saes else library.models())
    else:
        stdout_console().print(saes_table(library.saes()) if saes else models_table(library.models()))
