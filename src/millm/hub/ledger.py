"""How far the files of one download are, written by its threads and read five times a second."""

import threading
import time
from pathlib import Path
from typing import Literal

from millm.hub.jobs import Asked, JobState
from millm.hub.offered import Listing, RemoteFile
from millm.hub.orders import Moved
from millm.hub.patience import Wait
from millm.hub.refusals import problem

Stage = Literal["moving", "verifying", "done"]


class Ledger:
    def __init__(self, asked: Asked) -> None:
        self._asked = asked
        self._lock = threading.Lock()
        self._listing: Listing | None = None
        self._stages: dict[RemoteFile, Stage] = {}
        self._waits: dict[str, Wait] = {}
        self._attempt = 1

    def resolved(self, listing: Listing) -> None:
        with self._lock:
            self._listing = listing

    def set(self, file: RemoteFile, stage: Stage) -> None:
        with self._lock:
            self._stages[file] = stage

    def waits(self, what: str, wait: Wait | None) -> None:
        """`what` is not tried again before `wait` is over; None: it is tried now."""
        with self._lock:
            if wait is None:
                del self._waits[what]
            else:
                self._waits[what] = wait
                self._attempt = max(self._attempt, wait.attempt)

    def moved(self) -> Moved:
        with self._lock:
            listing, stages, waits = self._listing, dict(self._stages), list(self._waits.values())
        first = min(waits, key=lambda wait: wait.until, default=None)
        active = [file for file, stage in stages.items() if stage == "moving"]
        is_waiting = first is not None and len(waits) >= len(active)
        wanted = listing.wanted if listing else ()
        return Moved(
            state="waiting" if is_waiting else _state(listing, stages, active),
            commit=listing.commit if listing else None,
            done=_done(listing, stages) if listing else 0,
            total=sum(file.size for file in wanted),
            files_done=sum(stage == "done" for stage in stages.values()),
            files_total=len(wanted),
            attempt=self._attempt,
            retry_in=max(0.0, first.until - time.monotonic()) if first and is_waiting else None,
            problem=problem(first.why, self._asked) if first and is_waiting else None,
        )


def _state(listing: Listing | None, stages: dict[RemoteFile, Stage], active: list[RemoteFile]) -> JobState:
    if listing is None:
        return "resolving"
    return "running" if active or len(stages) < len(listing.wanted) else "verifying"


def _done(listing: Listing, stages: dict[RemoteFile, Stage]) -> int:
    """Bytes on the disk: of files that are there, and of what has come of the others."""
    coming = _coming(listing.blobs)
    return sum(
        file.size
        if stages.get(file, "moving") != "moving" or listing.is_here(file)
        else min(file.size, coming.get(file.hash, 0))
        for file in listing.wanted
    )


def _coming(folder: Path) -> dict[str, int]:
    """Hash → bytes; whoever brings them, one at a time can."""
    found: dict[str, int] = {}
    for path in folder.glob("*.incomplete"):
        hash_ = path.name.partition(".")[0]
        found[hash_] = max(found.get(hash_, 0), _size(path))
    return found


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:  # it has just become whole
        return 0
