"""The files below a folder with their sizes: links to files are followed, to folders they are not, so nothing loops."""

import os
from dataclasses import dataclass
from pathlib import Path

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
