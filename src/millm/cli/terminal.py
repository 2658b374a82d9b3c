"""Progress: bars on a terminal, one line per stage, whoever reports it; and the way to stop whoever reports.

Text from elsewhere, made safe to print: what a model or a repository says must not move the cursor.

The two shapes in which the terminal shows facts: a table under headings, and a sheet of name and value.

A public id on the screen: whole, on one line where there is room, else broken behind a slash.

Where a command's words go: what was asked for to stdout, all that is about it to stderr.

Bytes, counts, times and shares as people read them. Pure.
"""

import os
import sys
from asyncio import CancelledError
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

import msgspec
import typer
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.measure import Measurement
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from millm.engine.messages import Progress as ProgressEvent

_CONTROL_CHARS = {code: "�" for code in (*range(32), *range(127, 160)) if chr(code) not in "\n\t"}


def replace_control_chars(text: str) -> str:
    """Without control characters."""
    return text.translate(_CONTROL_CHARS)


TableRow = Sequence[RenderableType]
Fact = tuple[str, RenderableType | None]
"""A name and its value; None leaves the line out."""
ALIGN_RIGHT = ">"
"""Before a heading: the column is one of numbers."""


def table(headings: Sequence[str], rows: Iterable[TableRow]) -> Table:
    """The first column gives way where there is little room, the others only after it."""
    made = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for place, heading in enumerate(headings):
        justify = "right" if heading.startswith(ALIGN_RIGHT) else "left"
        made.add_column(heading.removeprefix(ALIGN_RIGHT), justify=justify, no_wrap=place > 0, overflow="fold")  # type: ignore[arg-type]
    for row in rows:
        made.add_row(*(plain_text(cell) for cell in row))
    return made


def details_table(facts: Iterable[Fact]) -> Table:
    made = Table.grid(padding=(0, 2, 0, 0))
    made.add_column(no_wrap=True)
    made.add_column(overflow="fold")
    for name, value in facts:
        if value is not None:
            made.add_row(Text(f"  {name}", style="dim"), plain_text(value))
    return made


def plain_text(value: RenderableType) -> RenderableType:
    """A text without markup or control characters; what is drawn already, as it is."""
    return Text(replace_control_chars(value)) if isinstance(value, str) else value


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


ProgressCallback = Callable[[str, int, int], None]
"""(stage, done, total)"""


class ProgressReporter:
    """`report(stage, done, total)`; safe to call from any thread. Raises CancelledError once it was stopped.

    A thread cannot be cancelled: what runs in one, a download say, ends at its next report.
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


class _ProgressBars:
    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._stages: dict[str, TaskID] = {}

    def __call__(self, stage: str, done: int, total: int) -> None:
        if stage not in self._stages:
            self._stages[stage] = self._progress.add_task(stage, total=total)
        self._progress.update(self._stages[stage], completed=done, total=total)


@contextmanager
def progress_bars(console: Console, *, persists: bool = True) -> Iterator[ProgressReporter]:
    """`stays`: on the screen, when it is over."""
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
    )
    with (
        Progress(*columns, TimeElapsedColumn(), console=console, transient=not persists) as progress,
        progress_reporter(_ProgressBars(progress)) as report,
    ):
        yield report


@contextmanager
def progress_reporter(callback: ProgressCallback) -> Iterator[ProgressReporter]:
    report = ProgressReporter(callback)
    try:
        yield report
    finally:
        report.stop()


UNKNOWN = "–"
"""Stands for what is not known."""
_BYTE_UNITS = ("B", "kB", "MB", "GB", "TB")
_COUNT_SCALES = ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k"))


def format_bytes(count: int | float | None) -> str:
    """Bytes in decimal units, as disks and Hugging Face count: `5.2 GB`, `269 MB`."""
    if count is None:
        return UNKNOWN
    value, unit = float(count), 0
    while round(value, 1) >= 1000 and unit < len(_BYTE_UNITS) - 1:
        value, unit = value / 1000, unit + 1
    return f"{value:.0f} {_BYTE_UNITS[unit]}" if unit == 0 or value >= 99.95 else f"{value:.1f} {_BYTE_UNITS[unit]}"


def format_bytes_progress(done: int, total: int) -> str:
    """`1.2 / 5.2 GB`; each with its unit where they differ."""
    (done_value, done_unit), (total_value, total_unit) = format_bytes(done).split(), format_bytes(total).split()
    return f"{done_value}{'' if done_unit == total_unit else f' {done_unit}'} / {total_value} {total_unit}"


def format_parameters(count: int | None) -> str:
    """`135 M`, `2.6 B`: thousands, millions, billions."""
    if count is None:
        return UNKNOWN
    scale, unit = next(((scale, unit) for scale, unit in _COUNT_SCALES if count >= scale), (1.0, ""))
    value = count / scale
    return f"{value:.0f} {unit}".rstrip() if value >= 99.95 or not unit else f"{value:.1f} {unit}"


def format_count(count: int | None) -> str:
    """`16,384`."""
    return UNKNOWN if count is None else f"{count:,}"


def format_file_count(count: int) -> str:
    return f"{format_count(count)} {'file' if count == 1 else 'files'}"


def format_percent(value: float | None) -> str:
    """0..1 in per cent."""
    return UNKNOWN if value is None else f"{100 * value:.0f} %"


def format_duration(seconds: float) -> str:
    """`8 s`, `2 min 46 s`, `3 h 05 min`."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02} min"
