"""Locate models and SAEs: local folders, Hugging Face's cache, imported links and the package's own."""

import asyncio
import os
from collections.abc import Iterator, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from pathlib import Path

import msgspec

from millm.errors import CannotStart, DownloadFailed, InvalidRequest, RepositoryNotFound, error_from_code
from millm.hub import hf_cache
from millm.hub.checkpoint import check_model_folder, check_sae_folder
from millm.hub.downloads import build_command, run_worker
from millm.hub.entries import Origin
from millm.hub.hf_cache import BranchNames, Revision
from millm.hub.home import File, OnProgress, files_below
from millm.hub.jobs import (
    ArtifactKind,
    DownloadSpec,
    FetchResult,
    RepositoryCommand,
    TransferProgress,
    WorkerFailure,
    parse_spec,
    public_id,
)
from millm.hub.sae_layout import detect_layout, find_saes, group_by_folder
from millm.settings import Settings

_TRIES = 3
"""Few, since a user waits at the terminal."""


@dataclass(frozen=True)
class LocalCheckpoint:
    name: str
    """The name in the API: the Hugging Face id, or the folder's name."""
    folder: Path
    is_trusted: bool = False
    """The operator allows this commit's own Python."""


def locate_model(name_or_path: str, token: str | None, on_progress: OnProgress) -> LocalCheckpoint:
    """Raises CannotStart (neither a folder nor an id), DownloadFailed and its subclasses, or InvalidModel."""
    located = _find_local(name_or_path, "model") or _download(name_or_path, "model", token, on_progress)
    check_model_folder(located.folder, is_trusted=located.is_trusted)
    return located


def locate_sae(name_or_path: str, token: str | None, on_progress: OnProgress) -> LocalCheckpoint:
    """A folder, or `owner/repo/path/inside` (Gemma Scope: `google/gemma-scope-2b-pt-res/layer_20/width_16k/…`).

    Raises CannotStart (neither), DownloadFailed and its subclasses, or InvalidSae.
    """
    located = _find_local(name_or_path, "SAE") or _download(name_or_path, "sae", token, on_progress)
    check_sae_folder(located.folder)
    return located


def _find_local(name_or_path: str, label: str) -> LocalCheckpoint | None:
    path = Path(os.path.expanduser(name_or_path))  # leaves `~unknown` unchanged, where Path.expanduser raises
    if path.is_file():
        raise CannotStart(f"{label} {name_or_path!r} is a file; give the folder that holds its files")
    return LocalCheckpoint(path.resolve().name, path.resolve()) if name_or_path and path.is_dir() else None


def _download(name_or_path: str, kind: ArtifactKind, token: str | None, on_progress: OnProgress) -> LocalCheckpoint:
    spec, settings = _parse_name(name_or_path, kind), Settings.load()
    command = msgspec.structs.replace(
        build_command("fetch", spec, settings), token=token, tries=_TRIES, accepts_cached=True
    )
    fetched = asyncio.run(_run_download(command, on_progress))
    is_trusted = f"{spec.repository}@{fetched.commit}" in settings.trust_remote_code
    return LocalCheckpoint(spec.name, Path(fetched.folder), is_trusted)


def _parse_name(name_or_path: str, kind: ArtifactKind) -> DownloadSpec:
    try:
        return parse_spec(name_or_path, kind)
    except InvalidRequest as error:
        label = "model" if kind == "model" else "SAE"
        raise CannotStart(
            f"{label} {name_or_path!r} is neither a folder here nor a Hugging Face id (owner/name): {error.message}"
        ) from error


async def _run_download(command: RepositoryCommand, on_progress: OnProgress) -> FetchResult:
    stage = f"downloading {command.spec.repository}"
    async with aclosing(run_worker(command)) as events:
        async for event in events:
            if isinstance(event, FetchResult):
                size = sum(file.size for file in event.files)
                on_progress(stage, size, size)
                return event
            if isinstance(event, WorkerFailure):
                code, message = event.problem.code, event.problem.message
                hint = "; nor is there such a folder here" if code == RepositoryNotFound.code else ""
                raise error_from_code(code, message + hint)
            if isinstance(event, TransferProgress):
                on_progress(stage, event.done, event.total)
    raise DownloadFailed(f"{command.spec.name}: the download process was killed; start again to resume it")


@dataclass(frozen=True)
class LibraryLocation:
    """A folder that holds a model or an SAE, complete or not."""

    id: str
    origin: Origin
    folder: Path
    files: dict[str, File] = field(default_factory=dict)
    """By path in the folder; for an SAE its own files, or those of its layout to convert."""
    problem: str | None = None
    """Why the folder cannot be read."""
    revision: Revision | None = None
    """The revision in the cache that the entry is, or is part of."""
    subpath: str = ""
    """An SAE's folder in the repository, or the file that it is."""
    layout: str | None = None
    """An SAE's layout; None: no SAE was detected."""

    @property
    def names(self) -> tuple[str, ...]:
        """All names of the entry; the first is its id."""
        if self.revision is None:
            return (self.id,)
        revisions = (*self.revision.refs, self.revision.commit)
        return tuple(public_id(self.revision.repository, name, self.subpath) for name in revisions)


def scan_models(links: Path, builtin: Mapping[str, Path], branches: BranchNames) -> Iterator[LibraryLocation]:
    yield from _scan_links(links, builtin)
    for revision in hf_cache.scan_revisions(branches):
        if revision.problem or _holds_model(revision.files):
            yield _cached_location(revision)


def scan_saes(links: Path, builtin: Mapping[str, Path], branches: BranchNames) -> Iterator[LibraryLocation]:
    yield from map(_with_sae_layout, _scan_links(links, builtin))
    for revision in hf_cache.scan_revisions(branches):
        for subpath, (layout, files) in find_saes(revision.files).items():
            yield replace(_cached_location(revision, subpath), files=files, layout=layout)


def read_model_link(link: Path) -> LibraryLocation:
    """The target folder of a library link, under the link's name."""
    return _scan_folder(link.name, "imported", link)


def read_sae_link(link: Path) -> LibraryLocation:
    return _with_sae_layout(read_model_link(link))


def _scan_links(links: Path, builtin: Mapping[str, Path]) -> Iterator[LibraryLocation]:
    for name, folder in builtin.items():
        if folder.is_dir():  # the demo's model is prepared on first use
            yield _scan_folder(name, "builtin", folder)
    if links.is_dir():
        for link in sorted(links.iterdir()):
            if link.is_symlink():
                yield read_model_link(link)


def _scan_folder(name: str, origin: Origin, folder: Path) -> LibraryLocation:
    try:
        return LibraryLocation(name, origin, folder, files_below(folder))
    except FileNotFoundError:
        return LibraryLocation(name, origin, folder, problem="the folder it was imported from is gone")
    except OSError as error:
        return LibraryLocation(name, origin, folder, problem=f"its folder cannot be read ({error.strerror})")


def _with_sae_layout(location: LibraryLocation) -> LibraryLocation:
    """Considers the SAE in the folder itself, not in subfolders."""
    layout, files = find_saes(location.files).get("", (None, group_by_folder(location.files).get("", {})))
    return replace(location, files=files, layout=layout)


def _cached_location(revision: Revision, subpath: str = "") -> LibraryLocation:
    return LibraryLocation(
        id=public_id(revision.repository, revision.name, subpath),
        origin="hub",
        folder=revision.folder / subpath,
        files=revision.files,
        problem=revision.problem,
        revision=revision,
        subpath=subpath,
    )


def _holds_model(files: Mapping[str, File]) -> bool:
    """True also for an incomplete download: weights, or a dangling link, without a config.json yet."""
    root = group_by_folder(files).get("", {})
    if detect_layout(root):
        return False
    return "config.json" in root or any(".safetensors" in name for name in root)
