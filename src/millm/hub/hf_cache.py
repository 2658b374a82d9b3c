"""Hugging Face's cache as it lies on the disk: which revisions of which repositories, and their files.

Whoever filled it. `models--owner--name/` holds `refs/main` (a commit), `snapshots/<commit>/…` (links) and `blobs/`
(what they lead to, shared by revisions). Read directly: importing huggingface_hub costs a quarter second.

How Hugging Face's cache names things, and what a killed download leaves in it. Does not import huggingface_hub.

models--owner--name/blobs/<etag>                      a file's content
models--owner--name/blobs/<etag>.<8 hex>.incomplete   …while it arrives, under the lock
.locks/models--owner--name/<etag>.lock                of whoever brings it
models--owner--name/snapshots/<commit>/<path>         a link to the content
models--owner--name/refs/<revision>                   a commit

Takes a revision, or some files of one, out of Hugging Face's cache, with the bytes that nothing else there uses.

First the links move into a bin beside `snapshots`, which is one step per file and hides them from everybody; then the
blobs that only the bin leads to go, then the bin. Whatever ends this on the way, the next deletion finishes it.
"""

import contextlib
import fcntl
import os
import re
import shutil
import uuid
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from millm.hub.home import File, files_below
from millm.settings import hf_cache_folder

_ORPHAN = re.compile(r"(?P<etag>.+)\.[0-9a-f]{8}\.incomplete")
"""`<etag>.incomplete`, without the digits, is of a huggingface_hub before 1.31, which goes on with it."""


def repo_folder_name(repository: str) -> str:
    return f"models--{repository.replace('/', '--')}"


def snapshot_folder(cache: Path, repository: str, commit: str) -> Path:
    return cache / repo_folder_name(repository) / "snapshots" / commit


def resolve_commit(cache: Path, repository: str, revision: str) -> str | None:
    """What a revision stood for when it was last fetched whole; a commit stands for itself."""
    if re.fullmatch(r"[0-9a-f]{40}", revision):
        return revision
    try:
        return (cache / repo_folder_name(repository) / "refs" / revision).read_text("ascii").strip()
    except FileNotFoundError:
        return None


def write_ref(cache: Path, repository: str, revision: str, commit: str) -> None:
    """At once or not at all; nothing to do for a revision that is a commit."""
    if revision == commit:
        return
    ref = cache / repo_folder_name(repository) / "refs" / revision
    ref.parent.mkdir(parents=True, exist_ok=True)
    fresh = ref.with_name(f".{ref.name}.{uuid.uuid4().hex}")
    fresh.write_text(commit, "ascii")
    fresh.replace(ref)


def remove_orphans(cache: Path, repository: str) -> None:
    """What nobody brings any more, going by the locks: another program that downloads is left alone."""
    blobs = cache / repo_folder_name(repository) / "blobs"
    for path in _list_folder(blobs):
        orphan = _ORPHAN.fullmatch(path.name)
        if orphan is None:
            continue
        with _try_lock(cache / ".locks" / repo_folder_name(repository) / f"{orphan['etag']}.lock") as is_ours:
            if is_ours:
                path.unlink(missing_ok=True)
    for path in _list_folder(blobs):
        if path.name.startswith("tmp_"):  # empty: huggingface_hub reads the umask from it, and lives without
            path.unlink(missing_ok=True)


def _list_folder(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []


@contextlib.contextmanager
def _try_lock(path: Path) -> Iterator[bool]:
    """True while it is held, False when somebody else has it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


TRASH_FOLDER = ".deleting"
"""Beside `snapshots`: what a deletion has taken out of it and not yet removed."""
BranchNames = Mapping[tuple[str, str], str]
"""(repository, commit) → the branch it was asked for as: that is written down only when all of it has come."""
_PREFIX = "models--"
_COMMIT = re.compile(r"[0-9a-f]{40}")
_INCOMPLETE = ".incomplete"


@dataclass(frozen=True)
class Revision:
    """One commit of a repository, as far as it is here."""

    repository: str
    """`owner/name`."""
    commit: str
    refs: tuple[str, ...]
    """Branches and tags that stand for it here; `main` first."""
    repository_folder: Path
    """The repository's folder in the cache."""
    files: dict[str, File] = field(default_factory=dict)
    problem: str | None = None
    """Why its files cannot be told."""
    has_incomplete_file: bool = False
    """The repository has a file that began to arrive and did not end, and no revision is newer than this."""

    @property
    def folder(self) -> Path:
        return self.repository_folder / "snapshots" / self.commit

    @property
    def name(self) -> str:
        """The shortest that names it."""
        return self.refs[0] if self.refs else self.commit


def scan_revisions(branches: BranchNames) -> list[Revision]:
    """Of every repository of models (SAEs are that too, to Hugging Face), by name; what is not one is left out."""
    return [revision for home in repository_folders() for revision in scan_repository(home, branches)]


def repository_folders() -> list[Path]:
    return [Path(path) for path in _folders(hf_cache_folder()) if os.path.basename(path).startswith(_PREFIX)]


def scan_repository(folder: Path, branches: BranchNames = MappingProxyType({})) -> list[Revision]:
    repository = folder.name.removeprefix(_PREFIX).replace("--", "/")
    refs, unfinished = _read_refs(folder / "refs"), _has_incomplete_blob(folder / "blobs")
    commits = [name for name in _names(folder / "snapshots") if _COMMIT.fullmatch(name)]
    for commit in commits:
        name = branches.get((repository, commit))
        if name and commit not in refs and name != commit and not any(name in names for names in refs.values()):
            refs[commit] = (name,)
    newest = max(
        commits, key=lambda commit: (commit in refs, _modified_time(folder / "snapshots" / commit)), default=None
    )
    return [
        _with_files(
            Revision(
                repository, commit, refs.get(commit, ()), folder, has_incomplete_file=unfinished and commit == newest
            )
        )
        for commit in commits
    ]


def _with_files(revision: Revision) -> Revision:
    changes: dict[str, object]
    try:
        files = files_below(revision.folder)
    except OSError as error:
        changes = {"problem": f"its folder in the cache cannot be read ({error.strerror})"}
    else:
        outside = _first_outside(files, os.fspath(revision.repository_folder))
        changes = {"files": files, "problem": outside and f"{outside} leads out of its repository's folder"}
    return Revision(**{**vars(revision), **changes})


def _first_outside(files: dict[str, File], repository_folder: str) -> str | None:
    """A cache's links lead to its own blobs; others could show a client any file of this machine."""
    inside = (repository_folder + os.sep, os.path.realpath(repository_folder) + os.sep)
    return next((path for path, file in files.items() if not os.fspath(file.real_path).startswith(inside)), None)


def _read_refs(folder: Path) -> dict[str, tuple[str, ...]]:
    """Commit → the names that stand for it."""
    found: dict[str, list[str]] = {}
    try:
        files = files_below(folder)
    except OSError:
        return {}
    for name, file in sorted(files.items(), key=lambda item: (item[0] != "main", item[0])):
        if not name.startswith(".") and (commit := _read_commit(file)):
            found.setdefault(commit, []).append(name)
    return {commit: tuple(names) for commit, names in found.items()}


def _read_commit(file: File) -> str | None:
    try:
        said = file.real_path.read_text("ascii").strip() if file.size and file.size < 100 else ""
    except (OSError, UnicodeDecodeError):
        return None
    return said if _COMMIT.fullmatch(said) else None


def _has_incomplete_blob(blobs: Path) -> bool:
    """`<etag>.incomplete` or `<etag>.<random>.incomplete`, and no `<etag>`: a later try has not brought it either."""
    names = set(_names(blobs))
    return any(name.split(".")[0] not in names for name in names if name.endswith(_INCOMPLETE))


def _folders(folder: Path) -> list[str]:
    return [path for name in _names(folder) if os.path.isdir(path := os.path.join(folder, name))]


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
    for home in repository_folders():
        if (home / TRASH_FOLDER).is_dir():
            _empty_trash(home)


def _empty_trash(repository_folder: Path) -> int:
    others = scan_repository(repository_folder)
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
