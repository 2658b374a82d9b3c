"""Publish a folder whole or not at all: built beside its target, flushed to disk, then renamed into place.

A folder that exists under its own name is therefore complete. What a killed build leaves is a hidden
sibling that nobody reads and that the next publish of the same target removes. A live build is told from a
dead one by a lock that its process holds on the sibling: right across containers too, where process ids are
not.

The home folder: where things are kept, and one server at a time in it.

Local folders in the library: a symbolic link each, under the name that clients use. The folder stays where it is.

The files below a folder with their sizes: links to files are followed, to folders they are not, so nothing loops.
"""

import errno
import fcntl
import os
import re
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from millm.errors import CannotStart, Conflict, HomeLocked, InvalidRequest

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


class Home:
    """Layout of `MILLM_HOME`; folders are made when they are first needed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def model_links(self) -> Path:
        """Links to model folders that the user imported, by the names they have in the library."""
        return self.folder / "models"

    @property
    def sae_links(self) -> Path:
        """The same for SAEs."""
        return self.folder / "sae-folders"

    @property
    def canonical_saes(self) -> Path:
        """Memory-mapped canonical copies of SAEs."""
        return self.folder / "saes"

    @property
    def database(self) -> Path:
        """What was acknowledged: `storage.py`."""
        return self.folder / "millm.db"

    @property
    def converted_saes(self) -> Path:
        """Copies of other libraries' SAEs in a layout that is read."""
        return self.folder / "converted"

    @property
    def profiles(self) -> Path:
        """The user's own profiles, one JSON file each."""
        return self.folder / "profiles"

    def create(self) -> None:
        """Raises CannotStart if the folder cannot be made or written."""
        try:
            for folder in (self.canonical_saes, self.profiles):
                folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise CannotStart(
                f"MILLM_HOME={self.folder} cannot be used ({error.strerror}); set MILLM_HOME to a folder you can write"
            ) from error

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold this home for one server. Raises HomeLocked, naming the process that has it."""
        with (self.folder / "server.lock").open("a+") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                file.seek(0)
                owner = file.read().strip() or "unknown"
                raise HomeLocked(
                    f"another miLLM server (process {owner}) uses {self.folder}; stop it, or set MILLM_HOME to"
                    " another folder"
                ) from error
            file.truncate(0)
            file.write(str(os.getpid()))
            file.flush()
            yield


_NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,95}", re.ASCII)


def check_library_name(name: str) -> None:
    """Raises InvalidRequest."""
    if not _NAME.fullmatch(name):
        raise InvalidRequest(
            f"{name[:100]!r} cannot be a name in the library: 1 to 96 letters, digits, '.', '_' or '-',"
            " a letter or digit first; give another with --name",
            param="name",
        )


def add_link(parent: Path, name: str, folder: Path) -> Path:
    """Raises Conflict where the name is taken."""
    parent.mkdir(parents=True, exist_ok=True)
    link = parent / name
    try:
        link.symlink_to(folder.resolve(), target_is_directory=True)
    except FileExistsError as error:
        raise Conflict(f"the library has a {name!r} already; give another name with --name") from error
    return link


_MAX_DEPTH = 8
"""Folders within folders; nothing that is published has more."""


@dataclass(frozen=True)
class File:
    path: str
    """From the folder that was walked, with `/` between."""
    real_path: Path
    """Where its bytes are: the file itself, or what a link leads to."""
    size: int | None
    """None: a link that leads nowhere."""
    modified_ns: int = 0
    """Nanoseconds since 1970."""
    accessed: float = 0.0
    """Seconds since 1970 when it was last read, as far as the file system says."""


def files_below(folder: Path) -> dict[str, File]:
    """By path. Raises OSError where a folder cannot be read."""
    found: dict[str, File] = {}
    _walk(os.fspath(folder), "", _MAX_DEPTH, found)
    return found


def total_size(files: "dict[str, File]") -> int:
    """Bytes on the disk: what two links lead to counts once."""
    return sum({file.real_path: file.size or 0 for file in files.values()}.values())


def _walk(folder: str, prefix: str, depth_left: int, files: dict[str, File]) -> None:
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                if depth_left:
                    _walk(entry.path, f"{prefix}{entry.name}/", depth_left - 1, files)
            else:
                path = f"{prefix}{entry.name}"
                files[path] = _file(path, entry)


def _file(path: str, entry: "os.DirEntry[str]") -> File:
    try:
        told = entry.stat()
    except OSError:
        return File(path, Path(entry.path), None)
    where = _link_target(entry.path) if entry.is_symlink() else entry.path
    return File(path, Path(where), told.st_size, told.st_mtime_ns, told.st_atime)


def _link_target(link: str) -> str:
    """One step is enough for a cache's links, and ten times as fast as resolving every folder above."""
    step = os.path.normpath(os.path.join(os.path.dirname(link), os.readlink(link)))
    return os.path.realpath(step) if os.path.islink(step) else step
