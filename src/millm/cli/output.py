"""Where a command's words go: what was asked for to stdout, all that is about it to stderr."""

import os
import sys

import msgspec
import typer
from rich.console import Console

_UNWATCHED_WIDTH = 200
"""Columns where nobody looks at a terminal: a line of a table stays a line for `grep`."""


def stdout_console() -> Console:
    """For what was asked for."""
    is_watched = sys.stdout.isatty() or "COLUMNS" in os.environ
    return Console(highlight=False, emoji=False, width=None if is_watched else _UNWATCHED_WIDTH)


def stderr_console() -> Console:
    """For progress and questions."""
    return Console(highlight=False, emoji=False, stderr=True)


def print_json(value: object) -> None:
    typer.echo(msgspec.json.format(msgspec.json.encode(value)).decode())


def print_json_line(value: object) -> None:
    typer.echo(msgspec.json.encode(value).decode())
