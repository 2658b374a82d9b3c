"""A change that a server takes its time for, with the stages it reports meanwhile."""

import threading
from collections.abc import Callable
from contextlib import ExitStack
from typing import Generic, TypeVar

from millm.cli.library_remote import POLL_SECONDS
from millm.cli.output import stderr_console
from millm.cli.progress import ProgressReporter, progress_bars
from millm.cli.remote import RemoteServer
from millm.errors import MillmError
from millm.status import ServerStatus

T = TypeVar("T")


def run_with_progress(remote: RemoteServer, change: Callable[[], T]) -> T:
    """What `change` returns, or raises; its progress is shown until then."""
    asked = _BackgroundCall(change)
    with ExitStack() as shown:
        report: ProgressReporter | None = None
        while not asked.finished.wait(POLL_SECONDS):
            changing = remote.request("GET", "/api/status", ServerStatus).changing
            if changing and changing.stage:
                report = report or shown.enter_context(progress_bars(stderr_console(), persists=False))
                report(changing.stage, changing.done, changing.total or 1)
    return asked.result()


class _BackgroundCall(Generic[T]):
    """A question in a thread of its own, a daemon, so that Ctrl+C need not wait for the answer."""

    def __init__(self, function: Callable[[], T]) -> None:
        self.finished = threading.Event()
        self._function = function
        self._results: list[T] = []
        self._error: MillmError | None = None
        threading.Thread(target=self._run, daemon=True).start()

    def result(self) -> T:
        if self._error:
            raise self._error
        return self._results[0]

    def _run(self) -> None:
        try:
            self._results.append(self._function())
        except MillmError as error:
            self._error = error
        finally:
            self.finished.set()
