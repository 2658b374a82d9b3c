"""Hugging Face's cache on the disk: its layout, the revisions in it, leftovers of killed downloads, and deletion.

models--owner--name/blobs/<etag>                      a file's content
models--owner--name/blobs/<etag>.<8 hex>.incomplete   the content while it arrives, under the lock
.locks/models--owner--name/<etag>.lock                the lock of the process that downloads it
models--owner--name/snapshots/<commit>/<path>         a link to the content
models--owner--name/refs/<revision>                   a commit

Own code rather than huggingface_hub's `scan_cache_dir` and `DeleteCacheStrategy`: those skip a repository with a
dangling link, which the library lists as incomplete, delete complete revisions only (an SAE is a folder of one), and
do not complete an interrupted deletion. Importing huggingface_hub would also add 0.25 s to each command.
"""

import contextlib
import fcntl
import os
import re
import shutil
import uuid
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType

from millm.hub.home import File, files_below
from millm.settings import hf_cache_folder

TRASH_FOLDER = ".deleting"
"""Beside `snapshots`: links that a deletion has moved out of it and not yet removed."""
BranchNames = Mapping[tuple[str, str], str]
"""(repository, commit) → the requested branch: the cache records it only after a complete download."""
_PREFIX = "models--"
_COMMIT = re.compile(r"[0-9a-f]{40}")
_INCOMPLETE = ".incomplete"
_ORPHAN = re.compile(r"(?P<etag>.+)\.[0-9a-f]{8}\.incomplete")
"""`<etag>.incomplete`, without the digits, is of a huggingface_hub before 1.31, which resumes it."""


@dataclass(frozen=True)
class Revision:
    """One commit of a repository, as far as the cache has it."""

    repository: str
    """`owner/name`."""
    commit: str
    refs: tuple[str, ...]
    """Branches and tags of this commit in the cache; `main` first."""
    repository_folder: Path
    files: dict[str, File] = field(default_factory=dict)
    problem: str | None = None
    """Why its files are unknown."""
    has_incomplete_file: bool = False
    """The repository has an interrupted file, and this is its newest revision."""

    @property
    def folder(self) -> Path:
        return self.repository_folder / "snapshots" / self.commit

    @property
    def name(self) -> str:
        return self.refs[0] if self.refs else self.commit


def repo_folder_name(repository: str) -> str:
    return f"{_PREFIX}{repository.replace('/', '--')}"


def snapshot_folder(cache: Path, repository: str, commit: str) -> Path:
    return cache / repo_folder_name(repository) / "snapshots" / commit


def resolve_commit(cache: Path, repository: str, revision: str) -> str | None:
    """The commit of a revision at its last complete download; a commit resolves to itself."""
    if _COMMIT.fullmatch(revision):
        return revision
    try:
        return (cache / repo_folder_name(repository) / "refs" / revision).read_text("ascii").strip()
    except FileNotFoundError:
        return None


def write_ref(cache: Path, repository: str, revision: str, commit: str) -> None:
    """Atomic; does nothing for a revision that is a commit."""
    if revision == commit:
        return
    ref = cache / repo_folder_name(repository) / "refs" / revision
    ref.parent.mkdir(parents=True, exist_ok=True)
    temporary = ref.with_name(f".{ref.name}.{uuid.uuid4().hex}")
    temporary.write_text(commit, "ascii")
    temporary.replace(ref)


def remove_orphans(cache: Path, repository: str) -> None:
    """Remove incomplete files that no process downloads; the locks of huggingface_hub protect the others."""
    blobs = cache / repo_folder_name(repository) / "blobs"
    for name in _names(blobs):
        orphan = _ORPHAN.fullmatch(name)
        if orphan is None:
            continue
        with _try_lock(cache / ".locks" / repo_folder_name(repository) / f"{orphan['etag']}.lock") as is_locked:
            if is_locked:
                (blobs / name).unlink(missing_ok=True)
    for name in _names(blobs):
        if name.startswith("tmp_"):  # empty: huggingface_hub reads the umask from it, and can do without
            (blobs / name).unlink(missing_ok=True)


@contextlib.contextmanager
def _try_lock(path: Path) -> Iterator[bool]:
    """The same lock as `filelock`'s on Unix, without its 0.08 s of import."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


def scan_revisions(branches: BranchNames) -> list[Revision]:
    """Of all model repositories, by name (SAEs are published as models too)."""
    return [revision for folder in _repository_folders() for revision in scan_repository(folder, branches)]


def _repository_folders() -> list[Path]:
    cache = hf_cache_folder()
    return [cache / name for name in _names(cache) if name.startswith(_PREFIX) and (cache / name).is_dir()]


def scan_repository(folder: Path, branches: BranchNames = MappingProxyType({})) -> list[Revision]:
    repository = folder.name.removeprefix(_PREFIX).replace("--", "/")
    refs, has_incomplete = _read_refs(folder / "refs"), _has_incomplete_blob(folder / "blobs")
    commits = [name for name in _names(folder / "snapshots") if _COMMIT.fullmatch(name)]
    for commit in commits:
        branch = branches.get((repository, commit))
        if branch and commit not in refs and branch != commit and not any(branch in names for names in refs.values()):
            refs[commit] = (branch,)
    newest = max(
        commits, key=lambda commit: (commit in refs, _modified_time(folder / "snapshots" / commit)), default=None
    )
    revisions = (
        Revision(
            repository, commit, refs.get(commit, ()), folder, has_incomplete_file=has_incomplete and commit == newest
        )
        for commit in commits
    )
    return [_with_files(revision) for revision in revisions]


def _with_files(revision: Revision) -> Revision:
    try:
        files = files_below(revision.folder)
    except OSError as error:
        return replace(revision, problem=f"its folder in the cache cannot be read ({error.strerror})")
    outside = _first_outside(files, os.fspath(revision.repository_folder))
    return replace(revision, files=files, problem=outside and f"{outside} leads out of its repository's folder")


def _first_outside(files: dict[str, File], repository_folder: str) -> str | None:
    """The cache links to its own blobs only; other links could expose any file of this machine to a client."""
    prefixes = (repository_folder + os.sep, os.path.realpath(repository_folder) + os.sep)
    return next((path for path, file in files.items() if not os.fspath(file.real_path).startswith(prefixes)), None)


def _read_refs(folder: Path) -> dict[str, tuple[str, ...]]:
    """Commit → its names, `main` first."""
    refs: dict[str, tuple[str, ...]] = {}
    try:
        files = files_below(folder)
    except OSError:
        return {}
    for name, file in sorted(files.items(), key=lambda item: (item[0] != "main", item[0])):
        if not name.startswith(".") and (commit := _read_commit(file)):
            refs[commit] = (*refs.get(commit, ()), name)
    return refs


def _read_commit(file: File) -> str | None:
    try:
        text = file.real_path.read_text("ascii").strip() if file.size and file.size < 100 else ""
    except (OSError, UnicodeDecodeError):
        return None
    return text if _COMMIT.fullmatch(text) else None


def _has_incomplete_blob(blobs: Path) -> bool:
    """True for an interrupted file (`<etag>.incomplete`, `<etag>.<random>.incomplete`) that no later try completed."""
    names = set(_names(blobs))
    return any(name.split(".")[0] not in names for name in names if name.endswith(_INCOMPLETE))


def _names(folder: Path) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except OSError:
        return []


def _modified_time(folder: Path) -> float:
    try:
        return folder.stat().st_mtime
    except OSError:
        return 0.0


# Deletion moves the links into `.deleting` first, one step per file that hides it from readers; then the blobs go that
# only `.deleting` links to, then `.deleting`. The next deletion completes an interrupted one.


def remove_revision(revision: Revision) -> int:
    """Returns the bytes that became free."""
    finish_deletions()
    trash = revision.repository_folder / TRASH_FOLDER / revision.commit
    trash.parent.mkdir(exist_ok=True)
    _remove_refs(revision)
    revision.folder.rename(trash)
    return _empty_trash(revision.repository_folder)


def remove_files(revision: Revision, paths: Iterable[str]) -> int:
    """Remove some files, and with the last one the revision. Returns the bytes that became free."""
    finish_deletions()
    for path in paths:
        trash = revision.repository_folder / TRASH_FOLDER / revision.commit / path
        trash.parent.mkdir(parents=True, exist_ok=True)
        (revision.folder / path).rename(trash)
    _remove_empty_folders(revision.folder)
    if not revision.folder.exists():
        _remove_refs(revision)
    return _empty_trash(revision.repository_folder)


def finish_deletions() -> None:
    """Complete interrupted deletions."""
    for folder in _repository_folders():
        if (folder / TRASH_FOLDER).is_dir():
            _empty_trash(folder)


def _empty_trash(folder: Path) -> int:
    others = scan_repository(folder)
    used = {file.real_path for revision in others for file in revision.files.values()}
    trash = {file.real_path: file for file in files_below(folder / TRASH_FOLDER).values()}
    if any(revision.problem and not revision.files for revision in others):
        trash = {}  # an unreadable revision may use them
    removable = [file for path, file in trash.items() if path not in used and path.is_relative_to(folder)]
    for file in removable:
        file.real_path.unlink(missing_ok=True)
    freed = sum(file.size or 0 for file in removable)
    shutil.rmtree(folder / TRASH_FOLDER)
    if not any((folder / "snapshots").iterdir()):
        freed += sum(file.size or 0 for path, file in files_below(folder).items() if path.startswith("blobs/"))
        shutil.rmtree(folder)
        shutil.rmtree(folder.parent / ".locks" / folder.name, ignore_errors=True)
    return freed


def _remove_refs(revision: Revision) -> None:
    for ref in revision.refs:
        (revision.repository_folder / "refs" / ref).unlink(missing_ok=True)


def _remove_empty_folders(folder: Path) -> None:
    """From the leaves up, including `folder`."""
    for inner in folder.iterdir():
        if inner.is_dir() and not inner.is_symlink():
            _remove_empty_folders(inner)
    if not any(folder.iterdir()):
        folder.rmdir()
