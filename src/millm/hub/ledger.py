"""How far the files of one download are, written by its threads and read five times a second."""

import threading
import time
from pathlib import Path
from typing import Literal

from millm.hub.jobs import DownloadSpec, JobState
from millm.hub.offered import Listing, RemoteFile
from millm.hub.orders import TransferProgress
from millm.hub.patience import RetryWait
from millm.hub.refusals import problem_from_error

FileStage = Literal["moving", "verifying", "done"]


class ProgressTracker:
    def __init__(self, spec: DownloadSpec) -> None:
        self._spec = spec
        self._lock = threading.Lock()
        self._listing: Listing | None = None
        self._stages: dict[RemoteFile, FileStage] = {}
        self._waits: dict[str, RetryWait] = {}
        self._attempt = 1

    def set_listing(self, listing: Listing) -> None:
        with self._lock:
            self._listing = listing

    def set_stage(self, file: RemoteFile, stage: FileStage) -> None:
        with self._lock:
            self._stages[file] = stage

    def set_wait(self, task: str, wait: RetryWait | None) -> None:
        """`what` is not tried again before `wait` is over; None: it is tried now."""
        with self._lock:
            if wait is None:
                del self._waits[task]
            else:
                self._waits[task] = wait
                self._attempt = max(self._attempt, wait.attempt)

    def progress(self) -> TransferProgress:
        with self._lock:
            listing, stages, waits = self._listing, dict(self._stages), list(self._waits.values())
        first = min(waits, key=lambda wait: wait.until, default=None)
        active = [file for file, stage in stages.items() if stage == "moving"]
        is_waiting = first is not None and len(waits) >= len(active)
        wanted = listing.selected if listing else ()
        return TransferProgress(
            state="waiting" if is_waiting else _job_state(listing, stages, active),
            commit=listing.commit if listing else None,
            done=_bytes_done(listing, stages) if listing else 0,
            total=sum(file.size for file in wanted),
            files_done=sum(stage == "done" for stage in stages.values()),
            files_total=len(wanted),
            attempt=self._attempt,
            retry_in=max(0.0, first.until - time.monotonic()) if first and is_waiting else None,
            problem=problem_from_error(first.error, self._spec) if first and is_waiting else None,
        )


def _job_state(listing: Listing | None, stages: dict[RemoteFile, FileStage], active: list[RemoteFile]) -> JobState:
    if listing is None:
        return "resolving"
    return "running" if active or len(stages) < len(listing.selected) else "verifying"


def _bytes_done(listing: Listing, stages: dict[RemoteFile, FileStage]) -> int:
    """Bytes on the disk: of files that are there, and of what has come of the others."""
    coming = _incomplete_bytes(listing.blobs)
    return sum(
        file.size
        if stages.get(file, "moving") != "moving" or listing.is_cached(file)
        else min(file.size, coming.get(file.hash, 0))
        for file in listing.selected
    )


def _incomplete_bytes(folder: Path) -> dict[str, int]:
    """Hash → bytes; whoever brings them, one at a time can."""
    found: dict[str, int] = {}
    for path in folder.glob("*.incomplete"):
        hash_ = path.name.partition(".")[0]
        found[hash_] = max(found.get(hash_, 0), _size_or_zero(path))
    return found


def _size_or_zero(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:  # it has just become whole
        return 0
