"""The files below a folder with their sizes: links to files are followed, to folders they are not, so nothing loops."""

import os
from dataclasses import dataclass
from pathlib import Path

_DEEPEST = 8
"""Folders within folders; nothing that is published has more."""


@dataclass(frozen=True)
class File:
    path: str
    """From the folder that was walked, with `/` between."""
    where: Path
    """Where its bytes are: the file itself, or what a link leads to."""
    size: int | None
    """None: a link that leads nowhere."""
    modified: int = 0
    """Nanoseconds since 1970."""
    used: float = 0.0
    """Seconds since 1970 when it was last read, as far as the file system says."""


def files_below(folder: Path) -> dict[str, File]:
    """By path. Raises OSError where a folder cannot be read."""
    found: dict[str, File] = {}
    _walk(os.fspath(folder), "", _DEEPEST, found)
    return found


def total(files: "dict[str, File]") -> int:
    """Bytes on the disk: what two links lead to counts once."""
    return sum({file.where: file.size or 0 for file in files.values()}.values())


def _walk(folder: str, prefix: str, deeper: int, found: dict[str, File]) -> None:
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                if deeper:
                    _walk(entry.path, f"{prefix}{entry.name}/", deeper - 1, found)
            else:
                path = f"{prefix}{entry.name}"
                found[path] = _file(path, entry)


def _file(path: str, entry: "os.DirEntry[str]") -> File:
    try:
        told = entry.stat()
    except OSError:
        return File(path, Path(entry.path), None)
    where = _target(entry.path) if entry.is_symlink() else entry.path
    return File(path, Path(where), told.st_size, told.st_mtime_ns, told.st_atime)


def _target(link: str) -> str:
    """One step is enough for a cache's links, and ten times as fast as resolving every folder above."""
    step = os.path.normpath(os.path.join(os.path.dirname(link), os.readlink(link)))
    return os.path.realpath(step) if os.path.islink(step) else step
