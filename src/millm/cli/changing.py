"""A change that a server takes its time for, with the stages it reports meanwhile."""

import threading
from collections.abc import Callable
from contextlib import ExitStack
from typing import Generic, TypeVar

from millm.cli.library_remote import TICK_SECONDS
from millm.cli.output import notes
from millm.cli.progress import Reporter, reporting
from millm.cli.remote import Remote
from millm.errors import MillmError
from millm.status import ServerStatus

Told = TypeVar("Told")


def changed(remote: Remote, change: Callable[[], Told]) -> Told:
    """What `change` returns, or raises; its progress is shown until then."""
    asked = _Asked(change)
    with ExitStack() as shown:
        report: Reporter | None = None
        while not asked.ended.wait(TICK_SECONDS):
            changing = remote.ask("GET", "/api/status", ServerStatus).changing
            if changing and changing.stage:
                report = report or shown.enter_context(reporting(notes(), stays=False))
                report(changing.stage, changing.done, changing.total or 1)
    return asked.result()


class _Asked(Generic[Told]):
    """A question in a thread of its own, a daemon, so that Ctrl+C need not wait for the answer."""

    def __init__(self, ask: Callable[[], Told]) -> None:
        self.ended = threading.Event()
        self._ask = ask
        self._told: list[Told] = []
        self._refused: MillmError | None = None
        threading.Thread(target=self._run, daemon=True).start()

    def result(self) -> Told:
        if self._refused:
            raise self._refused
        return self._told[0]

    def _run(self) -> None:
        try:
            self._told.append(self._ask())
        except MillmError as error:
            self._refused = error
        finally:
            self.ended.set()
