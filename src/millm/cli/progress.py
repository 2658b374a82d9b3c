"""Progress: bars on a terminal, one line per stage, whoever reports it; and the way to stop whoever reports."""

from asyncio import CancelledError
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

from millm.engine.messages import Progress as ProgressEvent

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
