"""`millm saes`: search the public SAEs, from the list that miLLM ships with."""

from typing import Annotated
from urllib.parse import urlencode

import typer

from millm.cli.found import parse_width, registry_table
from millm.cli.options import ApiKey, AsJson, Url
from millm.cli.output import print_json, stdout_console
from millm.cli.remote import connect
from millm.hub.catalog import SITES, RegistryPage, search_saes


def find_saes(
    text: Annotated[str, typer.Argument(help="Words of its repository, path or release.", show_default=False)] = "",
    model: Annotated[str | None, typer.Option(help="Hugging Face id of the model, or its short name.")] = None,
    layer: Annotated[int | None, typer.Option(min=0)] = None,
    site: Annotated[str | None, typer.Option(help=", ".join(SITES))] = None,
    width: Annotated[str | None, typer.Option(help="Features: 16384 or 16k.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=500, help="How many to show.")] = 20,
    offset: Annotated[int, typer.Option(min=0, help="How many to leave out before.")] = 0,
    as_json: AsJson = False,
    url: Url = None,
    api_key: ApiKey = None,
) -> None:
    """Search the public SAEs by model, layer, width and site; the most useful come first.

    Example:

        millm saes --model google/gemma-2-2b --layer 20 --width 16k

    Needs neither a server nor the network; with --url, asks that server's list.
    """
    asked = {
        "model": model, "layer": layer, "site": site, "width": parse_width(width) if width else None, "text": text,
        "limit": limit, "offset": offset,
    }  # fmt: skip
    wanted = {name: value for name, value in asked.items() if value is not None}
    if url:
        found = connect(url, api_key).request("GET", f"/api/registry/saes?{urlencode(wanted)}", RegistryPage)
    else:
        found = search_saes(**wanted)  # type: ignore[arg-type]  # the options' own types
    if as_json:
        print_json(found)
    else:
        stdout_console().print(registry_table(found, offset))
