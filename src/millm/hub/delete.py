"""Takes a revision, or some files of one, out of Hugging Face's cache, with the bytes that nothing else there uses.

First the links move into a bin beside `snapshots`, which is one step per file and hides them from everybody; then the
blobs that only the bin leads to go, then the bin. Whatever ends this on the way, the next deletion finishes it.
"""

import shutil
from collections.abc import Iterable
from pathlib import Path

from millm.hub import cache
from millm.hub.cache import TRASH_FOLDER, Revision
from millm.hub.tree import File, files_below


def remove_revision(revision: Revision) -> int:
    """All of it; → bytes that became free."""
    finish_deletions()
    binned = revision.repository_folder / TRASH_FOLDER / revision.commit
    binned.parent.mkdir(exist_ok=True)
    _remove_refs(revision)
    revision.folder.rename(binned)
    return _empty_trash(revision.repository_folder)


def remove_files(revision: Revision, paths: Iterable[str]) -> int:
    """Some of its files; the revision goes with the last of them. → bytes that became free."""
    finish_deletions()
    for path in paths:
        binned = revision.repository_folder / TRASH_FOLDER / revision.commit / path
        binned.parent.mkdir(parents=True, exist_ok=True)
        (revision.folder / path).rename(binned)
    _remove_empty_folders(revision.folder)
    if not revision.folder.exists():
        _remove_refs(revision)
    return _empty_trash(revision.repository_folder)


def remove_link(link: Path) -> int:
    """What it leads to is the user's; → 0 bytes."""
    link.unlink()
    return 0


def finish_deletions() -> None:
    """What earlier deletions began."""
    for home in cache.repository_folders():
        if (home / TRASH_FOLDER).is_dir():
            _empty_trash(home)


def _empty_trash(repository_folder: Path) -> int:
    others = cache.scan_repository(repository_folder)
    kept = {file.real_path for revision in others for file in revision.files.values()}
    binned = files_below(repository_folder / TRASH_FOLDER)
    if any(revision.problem and not revision.files for revision in others):
        binned = {}  # nobody knows what those use
    freed = sum(
        _unlink(file)
        for file in {file.real_path: file for file in binned.values()}.values()
        if _is_removable(file, repository_folder, kept)
    )
    shutil.rmtree(repository_folder / TRASH_FOLDER)
    if not any((repository_folder / "snapshots").iterdir()):
        freed += sum(
            file.size or 0 for path, file in files_below(repository_folder).items() if path.startswith("blobs/")
        )
        shutil.rmtree(repository_folder)
        shutil.rmtree(repository_folder.parent / ".locks" / repository_folder.name, ignore_errors=True)
    return freed


def _is_removable(file: File, repository_folder: Path, used: set[Path]) -> bool:
    """Only what is in this repository's folder is ours to remove."""
    return file.real_path not in used and file.real_path.is_relative_to(repository_folder)


def _unlink(file: File) -> int:
    file.real_path.unlink(missing_ok=True)
    return file.size or 0


def _remove_refs(revision: Revision) -> None:
    for ref in revision.refs:
        (revision.repository_folder / "refs" / ref).unlink(missing_ok=True)


def _remove_empty_folders(folder: Path) -> None:
    """From the leaves up, the folder itself included."""
    for inner in folder.iterdir():
        if inner.is_dir() and not inner.is_symlink():
            _remove_empty_folders(inner)
    if not any(folder.iterdir()):
        folder.rmdir()
