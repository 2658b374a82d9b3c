"""Publish a folder whole or not at all: built beside its target, flushed to disk, then renamed into place.

A folder that exists under its own name is therefore complete. What a killed build leaves is a hidden
sibling that nobody reads and that the next publish of the same target removes. A live build is told from a
dead one by a lock that its process holds on the sibling: right across containers too, where process ids are
not.
"""

import errno
import fcntl
import os
import shutil
import uuid
from collections.abc import Callable
from pathlib import Path

_SUFFIX = ".building"


def publish(target: Path, build: Callable[[Path], None]) -> Path:
    """Make `target` by calling `build` on an empty folder beside it; reuse it, unbuilt, if it is there.

    Whatever `build` raises (Ctrl+C included) is raised on, and its folder removed. Of two processes that
    publish the same target at once, the first to finish wins and the other's work is dropped.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(target)
    if target.exists():
        return target
    folder, lock = _claim_sibling(target)
    try:
        build(folder)
        _fsync_tree(folder)
        _rename(folder, target)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)
    return target


def _remove_abandoned(target: Path) -> None:
    for sibling in target.parent.glob(f".{target.name}.*{_SUFFIX}"):
        lock = _lock(sibling, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if lock is not None:
            shutil.rmtree(sibling, ignore_errors=True)
            os.close(lock)


def _claim_sibling(target: Path) -> tuple[Path, int]:
    """A new folder beside `target`, and the lock on it."""
    while True:  # until no other process, cleaning up, was faster to take the lock
        folder = target.with_name(f".{target.name}.{uuid.uuid4().hex}{_SUFFIX}")
        folder.mkdir()
        lock = _lock(folder, fcntl.LOCK_EX)
        if lock is not None and folder.exists():
            return folder, lock
        if lock is not None:
            os.close(lock)


def _lock(folder: Path, flags: int) -> int | None:
    try:
        handle = os.open(folder, os.O_RDONLY)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(handle, flags)
    except BlockingIOError:
        os.close(handle)
        return None
    return handle


def _fsync_tree(folder: Path) -> None:
    for path in [*folder.rglob("*"), folder]:
        _fsync(path)


def _fsync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _rename(folder: Path, target: Path) -> None:
    try:
        folder.rename(target)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
    _fsync(target.parent)
