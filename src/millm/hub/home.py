"""MILLM_HOME and its folders: layout, server lock, atomic publishing, links to imported folders, file listings."""

import errno
import fcntl
import os
import re
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from millm.errors import CannotStart, Conflict, HomeLocked, InvalidRequest

_BUILD_SUFFIX = ".building"


def publish(target: Path, build: Callable[[Path], None]) -> Path:
    """Build a folder beside `target`, flush it to the disk and rename it into place; an existing `target` is reused.

    A folder under its own name is therefore complete. A killed build leaves a hidden sibling that the next publish
    removes; live builds hold a lock on theirs (process ids would not do across containers). Exceptions of `build`,
    Ctrl+C included, pass through and its folder is removed. Of two concurrent builds the first one wins.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(target)
    if target.exists():
        return target
    folder, lock = _claim_sibling(target)
    try:
        build(folder)
        for path in (*folder.rglob("*"), folder):
            fsync(path)
        _rename(folder, target)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)
    return target


def fsync(path: Path) -> None:
    """Flush a file or a folder to the disk, so that a power cut leaves it complete."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _remove_abandoned(target: Path) -> None:
    for sibling in target.parent.glob(f".{target.name}.*{_BUILD_SUFFIX}"):
        lock = _lock_folder(sibling, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if lock is not None:
            shutil.rmtree(sibling, ignore_errors=True)
            os.close(lock)


def _claim_sibling(target: Path) -> tuple[Path, int]:
    """A new folder beside `target`, and the handle of its lock."""
    while True:  # another process may remove the new folder before it is locked
        folder = target.with_name(f".{target.name}.{uuid.uuid4().hex}{_BUILD_SUFFIX}")
        folder.mkdir()
        lock = _lock_folder(folder, fcntl.LOCK_EX)
        if lock is not None and folder.exists():
            return folder, lock
        if lock is not None:
            os.close(lock)


def _lock_folder(folder: Path, flags: int) -> int | None:
    """An own lock, since `filelock` locks files only, and a file inside would be published with the folder."""
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


def _rename(folder: Path, target: Path) -> None:
    try:
        folder.rename(target)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
    fsync(target.parent)


OnProgress = Callable[[str, int, int], None]
"""(stage, bytes done, bytes in total); called a few times a second, and may raise to abort."""


class Home:
    """Layout of `MILLM_HOME`; folders are created when they are first needed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.model_links = folder / "models"
        """Links to imported model folders, by their names in the library."""
        self.sae_links = folder / "sae-folders"
        """Links to imported SAE folders."""
        self.canonical_saes = folder / "saes"
        """Memory-mapped canonical copies of SAEs."""
        self.converted_saes = folder / "converted"
        """Copies of other libraries' SAEs in a supported layout."""
        self.database = folder / "millm.db"
        self.profiles = folder / "profiles"
        """The user's own profiles, one JSON file each."""

    def create(self) -> None:
        """Raises CannotStart if the folder cannot be created or written."""
        try:
            for folder in (self.canonical_saes, self.profiles):
                folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise CannotStart(
                f"MILLM_HOME={self.folder} cannot be used ({error.strerror}); set MILLM_HOME to a folder you can write"
            ) from error

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold this home for one server. Raises HomeLocked, naming the process that holds it.

        An own lock, since `filelock` truncates the file, and with it the process id, before it fails.
        """
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
    """Link a local folder under a library name. Raises Conflict where the name is in use."""
    parent.mkdir(parents=True, exist_ok=True)
    link = parent / name
    try:
        link.symlink_to(folder.resolve(), target_is_directory=True)
    except FileExistsError as error:
        raise Conflict(f"the library has a {name!r} already; give another name with --name") from error
    return link


_MAX_DEPTH = 8
"""Levels of folders; published repositories have fewer."""


@dataclass(frozen=True)
class File:
    path: str
    """Relative to the listed folder, with `/`."""
    real_path: Path
    """The file itself, or the target of a link."""
    size: int | None
    """None: a dangling link."""
    modified_ns: int = 0
    """Nanoseconds since 1970."""
    accessed: float = field(default=0.0, compare=False)
    """Seconds since 1970 of the last read, as far as the file system records it."""


def files_below(folder: Path) -> dict[str, File]:
    """By path; links to files are followed, links to folders are not. Raises OSError for an unreadable folder."""
    files: dict[str, File] = {}
    _walk(os.fspath(folder), "", _MAX_DEPTH, files)
    return files


def total_size(files: dict[str, File]) -> int:
    """Bytes on the disk: the target of two links counts once."""
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
        status = entry.stat()
    except OSError:
        return File(path, Path(entry.path), None)
    real_path = _link_target(entry.path) if entry.is_symlink() else entry.path
    return File(path, Path(real_path), status.st_size, status.st_mtime_ns, status.st_atime)


def _link_target(link: str) -> str:
    """Follow one step, enough for a cache's links and ten times as fast as resolving all parent folders."""
    target = os.path.normpath(os.path.join(os.path.dirname(link), os.readlink(link)))
    return os.path.realpath(target) if os.path.islink(target) else target
