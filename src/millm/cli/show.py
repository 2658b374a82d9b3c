"""`millm show`: everything that is known about a model or an SAE of the library."""

from typing import Annotated

import msgspec
import typer

from millm.cli.door import AnyLibrary, find, open_library
from millm.cli.memory import comparison
from millm.cli.options import ApiKey, AsJson, Url
from millm.cli.output import out, tell_json
from millm.cli.sheets import model_sheet, sae_sheet
from millm.desired import WantedModel
from millm.engine.messages import Quantization
from millm.hub.entries import ModelEntry, SaeEntry
from millm.hub.estimate import Estimate
from millm.hub.registry import count_for

QUANTIZATIONS: tuple[Quantization, ...] = ("none", "8bit", "4bit")


class Shown(msgspec.Struct, frozen=True, kw_only=True):
    """What `--json` prints."""

    entry: ModelEntry | SaeEntry
    known_saes: int | None = None
    """SAEs for this model that the registry knows; None for an SAE."""
    estimates: tuple[Estimate, ...] = ()
    """Of memory, for each quantization."""


def run(
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
    shown = _look(library, find(library, id))
    if as_json:
        tell_json(shown)
    else:
        _print(shown)


def _look(library: AnyLibrary, entry: ModelEntry | SaeEntry) -> Shown:
    if isinstance(entry, SaeEntry):
        return Shown(entry=entry)
    return Shown(entry=entry, known_saes=count_for(entry.id.partition("@")[0]), estimates=_estimates(library, entry))


def _estimates(library: AnyLibrary, entry: ModelEntry) -> tuple[Estimate, ...]:
    """None for what is not whole: there is nothing to read them from."""
    if entry.state != "whole":
        return ()
    return tuple(library.estimate(WantedModel(id=entry.id, quantization=name)) for name in QUANTIZATIONS)


def _print(shown: Shown) -> None:
    console = out()
    if isinstance(shown.entry, SaeEntry):
        console.print(sae_sheet(shown.entry))
        return
    console.print(model_sheet(shown.entry, shown.known_saes or 0))
    if shown.estimates:
        console.print()
        console.print(comparison(shown.estimates))
