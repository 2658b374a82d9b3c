"""Output on the terminal: results on stdout, progress and questions on stderr; tables, sheets, ids and quantities.

Text of models and repositories is stripped of control characters, which could move the cursor.
"""

import os
import sys
from asyncio import CancelledError
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

import msgspec
import typer
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.measure import Measurement
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from millm.engine.messages import Progress as ProgressEvent

T = TypeVar("T")
UNKNOWN = "–"
"""Shown for a missing value."""
_PIPE_WIDTH = 200
"""Columns where stdout is no terminal, so that a table row stays one line for `grep`."""


def stdout_console() -> Console:
    is_terminal = sys.stdout.isatty() or "COLUMNS" in os.environ
    return Console(highlight=False, emoji=False, width=None if is_terminal else _PIPE_WIDTH)


def stderr_console() -> Console:
    return Console(highlight=False, emoji=False, stderr=True)


def print_json(value: object) -> None:
    typer.echo(msgspec.json.format(msgspec.json.encode(value)).decode())


def print_json_line(value: object) -> None:
    typer.echo(msgspec.json.encode(value).decode())


def print_result(value: T, draw: Callable[[T], RenderableType], *, as_json: bool) -> None:
    """Print a command's result on stdout: as JSON, or as `draw` renders it."""
    if as_json:
        print_json(value)
    else:
        stdout_console().print(draw(value))


def print_line(console: Console, text: str, style: str = "") -> None:
    """Print plain text that Rich neither wraps nor reads as markup."""
    console.print(replace_control_chars(text), style=style, markup=False, highlight=False, soft_wrap=True)


_CONTROL_CHARS = {code: "�" for code in (*range(32), *range(127, 160)) if chr(code) not in "\n\t"}


def replace_control_chars(text: str) -> str:
    return text.translate(_CONTROL_CHARS)


def plain_text(value: RenderableType) -> RenderableType:
    """A string as text without markup or control characters; any other renderable unchanged."""
    return Text(replace_control_chars(value)) if isinstance(value, str) else value


def truncate(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text[: width - 1]}…"


Fact = tuple[str, RenderableType | None]
"""A name and its value; None or UNKNOWN leaves the line out."""
ALIGN_RIGHT = ">"
"""Prefix of the heading of a right-aligned column."""


def table(headings: Sequence[str], rows: Iterable[Sequence[RenderableType]], *, flexible: int = 0) -> Table:
    """Rows under headings. Column `flexible` wraps first where the terminal is narrow, the others only after it."""
    drawn = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for position, heading in enumerate(headings):
        drawn.add_column(
            plain_text(heading.removeprefix(ALIGN_RIGHT)),
            justify="right" if heading.startswith(ALIGN_RIGHT) else "left",
            no_wrap=position != flexible % len(headings),
            overflow="fold",
        )
    for row in rows:
        drawn.add_row(*map(plain_text, row))
    return drawn


def sheet(title: str, facts: Iterable[Fact], *more: RenderableType) -> RenderableType:
    """A title, a line for each known fact, and what follows them."""
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    for name, value in facts:
        if value not in (None, UNKNOWN):
            grid.add_row(Text(f"  {name}", style="dim"), plain_text(value))
    return Group(IdText(title), grid, *map(plain_text, more))


class IdText:
    """A public id that breaks only behind a slash, so that it can be copied; Rich would break it anywhere."""

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
    """Break behind the repository's name if both halves fit, else into as few lines as possible.

    A part longer than `width` is not broken.
    """
    parts = id.replace("/", "/\n").split("\n")
    repository, inside = "".join(parts[:2]), "".join(parts[2:])
    if len(id) > width >= max(len(repository), len(inside)):
        parts, width = [repository, inside], 0
    line = ""
    for part in parts:
        if line and len(line) + len(part) > width:
            yield line
            line = ""
        line += part
    yield line


ProgressCallback = Callable[[str, int, int], None]
"""(stage, done, total)"""


class ProgressReporter:
    """`report(stage, done, total)`, from any thread. Raises CancelledError after `stop`.

    A thread cannot be cancelled: a download that runs in one ends at its next report.
    """

    def __init__(self, callback: ProgressCallback) -> None:
        self._callback = callback
        self._is_stopped = False

    def stop(self) -> None:
        self._is_stopped = True

    def __call__(self, stage: str, done: int, total: int) -> None:
        if self._is_stopped:
            raise CancelledError
        self._callback(stage, done, total)

    def report_event(self, event: ProgressEvent) -> None:
        self(event.stage, event.done, event.total)


@contextmanager
def progress_reporter(callback: ProgressCallback) -> Iterator[ProgressReporter]:
    report = ProgressReporter(callback)
    try:
        yield report
    finally:
        report.stop()


@contextmanager
def progress_bars(console: Console, *, persists: bool = True) -> Iterator[ProgressReporter]:
    """Draw a bar for each stage; `persists`: the bars stay on the screen afterwards."""
    percent = TextColumn("{task.percentage:>3.0f} %")
    columns = SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), percent, TimeElapsedColumn()
    tasks: dict[str, TaskID] = {}

    def update(stage: str, done: int, total: int) -> None:
        if stage not in tasks:
            tasks[stage] = progress.add_task(stage, total=total)
        progress.update(tasks[stage], completed=done, total=total)

    with Progress(*columns, console=console, transient=not persists) as progress, progress_reporter(update) as report:
        yield report


def _format_scaled(count: float | None, units: Sequence[str]) -> str:
    """Three digits at most, in the first of the units (each 1000 times the one before) in which they suffice."""
    if count is None:
        return UNKNOWN
    value, step = float(count), 0
    while round(value, 1) >= 1000 and step < len(units) - 1:
        value, step = value / 1000, step + 1
    digits = 0 if step == 0 or value >= 99.95 else 1
    return f"{value:.{digits}f} {units[step]}".rstrip()


def format_bytes(count: float | None) -> str:
    """Bytes in decimal units, as disks and Hugging Face count: `5.2 GB`, `269 MB`."""
    return _format_scaled(count, ("B", "kB", "MB", "GB", "TB"))


def format_bytes_progress(done: int, total: int) -> str:
    """`1.2 / 5.2 GB`; each with its unit where they differ."""
    (done_value, done_unit), (total_value, total_unit) = format_bytes(done).split(), format_bytes(total).split()
    return f"{done_value}{'' if done_unit == total_unit else f' {done_unit}'} / {total_value} {total_unit}"


def format_parameters(count: int | None) -> str:
    """`135 M`, `2.6 B`: thousands, millions, billions."""
    return _format_scaled(count, ("", "k", "M", "B", "T"))


def format_count(count: int | None) -> str:
    """`16,384`."""
    return UNKNOWN if count is None else f"{count:,}"


def format_file_count(count: int) -> str:
    return f"{format_count(count)} {'file' if count == 1 else 'files'}"


def format_page(offset: int, count: int, total: int) -> str:
    """`21 to 40 of 1,104; --offset 40 shows more`."""
    last = offset + count
    more = f"; --offset {last} shows more" if last < total else ""
    return f"{offset + 1} to {last} of {format_count(total)}{more}"


def format_percent(value: float | None) -> str:
    """A share 0..1 in per cent."""
    return UNKNOWN if value is None else f"{100 * value:.0f} %"


def format_duration(seconds: float) -> str:
    """`8 s`, `2 min 46 s`, `3 h 05 min`."""
    total = max(0, round(seconds))
    if total < 60:
        return f"{total} s"
    if total < 3600:
        return f"{total // 60} min {total % 60:02} s"
    return f"{total // 3600} h {total % 3600 // 60:02} min"
