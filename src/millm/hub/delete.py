"""Takes a revision, or some files of one, out of Hugging Face's cache, with the bytes that nothing else there uses.

First the links move into a bin beside `snapshots`, which is one step per file and hides them from everybody; then the
blobs that only the bin leads to go, then the bin. Whatever ends this on the way, the next deletion finishes it.
"""

import shutil
from collections.abc import Iterable
from pathlib import Path

from millm.hub import cache
from millm.hub.cache import BIN, Revision
from millm.hub.tree import File, files_below


def remove_revision(revision: Revision) -> int:
    """All of it; → bytes that became free."""
    finish_all()
    binned = revision.home / BIN / revision.commit
    binned.parent.mkdir(exist_ok=True)
    _forget_refs(revision)
    revision.folder.rename(binned)
    return _empty(revision.home)


def remove_files(revision: Revision, paths: Iterable[str]) -> int:
    """Some of its files; the revision goes with the last of them. → bytes that became free."""
    finish_all()
    for path in paths:
        binned = revision.home / BIN / revision.commit / path
        binned.parent.mkdir(parents=True, exist_ok=True)
        (revision.folder / path).rename(binned)
    _remove_empty_folders(revision.folder)
    if not revision.folder.exists():
        _forget_refs(revision)
    return _empty(revision.home)


def remove_link(link: Path) -> int:
    """What it leads to is the user's; → 0 bytes."""
    link.unlink()
    return 0


def finish_all() -> None:
    """What earlier deletions began."""
    for home in cache.repositories():
        if (home / BIN).is_dir():
            _empty(home)


def _empty(home: Path) -> int:
    others = cache.revisions_of(home)
    kept = {file.where for revision in others for file in revision.files.values()}
    binned = files_below(home / BIN)
    if any(revision.problem and not revision.files for revision in others):
        binned = {}  # nobody knows what those use
    freed = sum(
        _unlink(file) for file in {file.where: file for file in binned.values()}.values() if _goes(file, home, kept)
    )
    shutil.rmtree(home / BIN)
    if not any((home / "snapshots").iterdir()):
        freed += sum(file.size or 0 for path, file in files_below(home).items() if path.startswith("blobs/"))
        shutil.rmtree(home)
        shutil.rmtree(home.parent / ".locks" / home.name, ignore_errors=True)
    return freed


def _goes(file: File, home: Path, kept: set[Path]) -> bool:
    """Only what is in this repository's folder is ours to remove."""
    return file.where not in kept and file.where.is_relative_to(home)


def _unlink(file: File) -> int:
    file.where.unlink(missing_ok=True)
    return file.size or 0


def _forget_refs(revision: Revision) -> None:
    for ref in revision.refs:
        (revision.home / "refs" / ref).unlink(missing_ok=True)


def _remove_empty_folders(folder: Path) -> None:
    """From the leaves up, the folder itself included."""
    for inner in folder.iterdir():
        if inner.is_dir() and not inner.is_symlink():
            _remove_empty_folders(inner)
    if not any(folder.iterdir()):
        folder.rmdir()
