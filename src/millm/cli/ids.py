"""A public id on the screen: whole, on one line where there is room, else broken behind a slash."""

from collections.abc import Iterator

from rich.console import Console, ConsoleOptions, RenderResult
from rich.measure import Measurement
from rich.segment import Segment
from rich.text import Text

from millm.cli.visible import replace_control_chars


class IdText:
    """Rich would break it anywhere, and a person who copies it has to guess where."""

    def __init__(self, id: str, style: str = "") -> None:
        self._id = replace_control_chars(id)
        self._style = style

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for line in wrap_id(self._id, options.max_width):
            yield Text(line, style=self._style, overflow="fold", end="")
            yield Segment.line()

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        parts = self._id.replace("/", "/\n").split("\n")
        widest = max(map(len, parts))
        return Measurement(min(widest, options.max_width), min(len(self._id), options.max_width))


def wrap_id(id: str, width: int) -> Iterator[str]:
    """Behind the repository's name if that does; else as few lines as possible. A part that is too long stays whole."""
    parts = id.replace("/", "/\n").split("\n")
    repository, inside = "".join(parts[:2]), "".join(parts[2:])
    if len(id) > width >= max(len(repository), len(inside)):
        yield from (repository, inside)
    else:
        yield from _wrap_parts(parts, width)


def _wrap_parts(parts: list[str], width: int) -> Iterator[str]:
    line = ""
    for part in parts:
        if line and len(line) + len(part) > width:
            yield line
            line = ""
        line += part
    yield line
