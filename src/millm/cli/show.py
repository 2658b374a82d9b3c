"""`millm show`: everything that is known about a model or an SAE of the library."""

from typing import Annotated

import msgspec
import typer

from millm.cli.door import LibraryClient, find_entry, open_library
from millm.cli.memory import quantizations_table
from millm.cli.options import ApiKey, AsJson, Url
from millm.cli.output import print_json, stdout_console
from millm.cli.sheets import model_details, sae_details
from millm.engine.messages import Quantization
from millm.hub.catalog import count_saes
from millm.hub.entries import ModelEntry, SaeEntry
from millm.hub.memory_estimate import Estimate
from millm.status import ModelSpec

QUANTIZATIONS: tuple[Quantization, ...] = ("none", "8bit", "4bit")


class EntryDetails(msgspec.Struct, frozen=True, kw_only=True):
    """What `--json` prints."""

    entry: ModelEntry | SaeEntry
    known_saes: int | None = None
    """SAEs for this model that the registry knows; None for an SAE."""
    estimates: tuple[Estimate, ...] = ()
    """Of memory, for each quantization."""


def show(
    id: Annotated[str, typer.Argument(metavar="ID", help="As `millm list` shows it.", show_default=False)],
    as_json: AsJson = False,
    url: Url = None,
    api_key: ApiKey = None,
) -> None:
    """Show everything that is known about a model or an SAE of the library.

    Example:

        millm show google/gemma-2-2b

    For a model also the memory that it would take, in as many and in fewer bits.
    """
    library = open_library(url, api_key)
    shown = _collect_details(library, find_entry(library, id))
    if as_json:
        print_json(shown)
    else:
        _print_details(shown)


def _collect_details(library: LibraryClient, entry: ModelEntry | SaeEntry) -> EntryDetails:
    if isinstance(entry, SaeEntry):
        return EntryDetails(entry=entry)
    return EntryDetails(
        entry=entry,
        known_saes=count_saes(entry.id.partition("@")[0]),
        estimates=_estimate_quantizations(library, entry),
    )


def _estimate_quantizations(library: LibraryClient, entry: ModelEntry) -> tuple[Estimate, ...]:
    """None for what is not whole: there is nothing to read them from."""
    if entry.state != "whole":
        return ()
    return tuple(library.estimate(ModelSpec(id=entry.id, quantization=name)) for name in QUANTIZATIONS)


def _print_details(details: EntryDetails) -> None:
    console = stdout_console()
    if isinstance(details.entry, SaeEntry):
        console.print(sae_details(details.entry))
        return
    console.print(model_details(details.entry, details.known_saes or 0))
    if details.estimates:
        console.print()
        console.print(quantizations_table(details.estimates))
