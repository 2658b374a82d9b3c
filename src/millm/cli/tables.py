"""What is in the library, as tables: entries in, something to print out. Knows no server."""

from collections.abc import Sequence

from rich.console import Group, RenderableType

from millm.cli.columns import plain, table
from millm.cli.ids import Id
from millm.cli.quantities import UNKNOWN, number, parameters, size
from millm.hub.entries import ModelEntry, SaeEntry

NO_MODELS = "no models here yet; `millm pull owner/name` downloads one, `millm import FOLDER` adds one of yours"
NO_SAES = "no SAEs here yet; `millm saes --model owner/name` finds those that are known for a model"


def models_table(entries: Sequence[ModelEntry]) -> RenderableType:
    if not entries:
        return plain(NO_MODELS)
    rows = [
        (
            Id(entry.id), size(entry.size), entry.model_type or UNKNOWN, parameters(entry.parameters),
            entry.quantization or entry.dtype or UNKNOWN, model_state(entry),
        )
        for entry in entries
    ]  # fmt: skip
    return Group(table(("ID", ">SIZE", "TYPE", ">PARAMS", "WEIGHTS", "STATE"), rows), *_problems(entries))


def saes_table(entries: Sequence[SaeEntry]) -> RenderableType:
    if not entries:
        return plain(NO_SAES)
    rows = [
        (
            Id(entry.id), size(entry.size), number(entry.width), _layer(entry.layer),
            entry.format or UNKNOWN, sae_state(entry),
        )
        for entry in entries
    ]  # fmt: skip
    return Group(table(("ID", ">SIZE", ">FEATURES", ">LAYER", "FORMAT", "STATE"), rows), *_problems(entries))


def model_state(entry: ModelEntry) -> str:
    return "loaded" if entry.is_loaded else _state(entry)


def sae_state(entry: SaeEntry) -> str:
    return "attached" if entry.is_attached else _state(entry)


def _state(entry: ModelEntry | SaeEntry) -> str:
    return "on disk" if entry.state == "whole" else entry.state


def _layer(layer: int | None) -> str:
    return UNKNOWN if layer is None else str(layer)


def _problems(entries: Sequence[ModelEntry] | Sequence[SaeEntry]) -> list[RenderableType]:
    return [plain(f"! {entry.id}: {entry.problem}") for entry in entries if entry.problem]
