"""What is in the library, as tables: entries in, something to print out. Knows no server."""

from collections.abc import Sequence

from rich.console import Group, RenderableType

from millm.cli.columns import plain_text, table
from millm.cli.ids import IdText
from millm.cli.quantities import UNKNOWN, format_bytes, format_count, format_parameters
from millm.hub.entries import ModelEntry, SaeEntry

NO_MODELS_MESSAGE = "no models here yet; `millm pull owner/name` downloads one, `millm import FOLDER` adds one of yours"
NO_SAES_MESSAGE = "no SAEs here yet; `millm saes --model owner/name` finds those that are known for a model"


def models_table(entries: Sequence[ModelEntry]) -> RenderableType:
    if not entries:
        return plain_text(NO_MODELS_MESSAGE)
    rows = [
        (
            IdText(entry.id), format_bytes(entry.size), entry.model_type or UNKNOWN, format_parameters(entry.parameters),
            entry.quantization or entry.dtype or UNKNOWN, model_state_text(entry),
        )
        for entry in entries
    ]  # fmt: skip
    return Group(table(("ID", ">SIZE", "TYPE", ">PARAMS", "WEIGHTS", "STATE"), rows), *_problem_lines(entries))


def saes_table(entries: Sequence[SaeEntry]) -> RenderableType:
    if not entries:
        return plain_text(NO_SAES_MESSAGE)
    rows = [
        (
            IdText(entry.id), format_bytes(entry.size), format_count(entry.width), _layer_text(entry.layer),
            entry.format or UNKNOWN, sae_state_text(entry),
        )
        for entry in entries
    ]  # fmt: skip
    return Group(table(("ID", ">SIZE", ">FEATURES", ">LAYER", "FORMAT", "STATE"), rows), *_problem_lines(entries))


def model_state_text(entry: ModelEntry) -> str:
    return "loaded" if entry.is_loaded else _disk_state_text(entry)


def sae_state_text(entry: SaeEntry) -> str:
    return "attached" if entry.is_attached else _disk_state_text(entry)


def _disk_state_text(entry: ModelEntry | SaeEntry) -> str:
    return "on disk" if entry.state == "whole" else entry.state


def _layer_text(layer: int | None) -> str:
    return UNKNOWN if layer is None else str(layer)


def _problem_lines(entries: Sequence[ModelEntry] | Sequence[SaeEntry]) -> list[RenderableType]:
    return [plain_text(f"! {entry.id}: {entry.problem}") for entry in entries if entry.problem]
