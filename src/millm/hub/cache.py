"""Hugging Face's cache as it lies on the disk: which revisions of which repositories, and their files.

Whoever filled it. `models--owner--name/` holds `refs/main` (a commit), `snapshots/<commit>/…` (links) and `blobs/`
(what they lead to, shared by revisions). Read directly: importing huggingface_hub costs a quarter second.
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from millm.hub.tree import File, files_below
from millm.settings import hf_cache_folder

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
