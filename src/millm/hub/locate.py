"""Where models and SAEs lie, each with its id: Hugging Face's cache, folders the user linked, what ships with miLLM.

A name on the command line → a folder on disk: a local folder as it is, a Hugging Face id through its cache.
"""

import asyncio
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from pathlib import Path

import msgspec

from millm.errors import CannotStart, DownloadFailed, InvalidRequest, MillmError, RepositoryNotFound, error_from_code
from millm.hub import hf_cache
from millm.hub.checkpoint import check_model_folder, check_sae_folder
from millm.hub.downloads import build_command, run_worker
from millm.hub.entries import Origin
from millm.hub.hf_cache import BranchNames, Revision
from millm.hub.home import File, files_below
from millm.hub.jobs import (
    ArtifactKind,
    DownloadSpec,
    FetchResult,
    RepositoryCommand,
    TransferProgress,
    WorkerFailure,
    parse_spec,
)
from millm.hub.sae_layout import detect_layout, find_saes, group_by_folder
from millm.settings import Settings

OnProgress = Callable[[str, int, int], None]
"""(stage, bytes done, bytes in all); called a few times a second, and may raise to give up."""
_TRIES = 3
"""Somebody waits before a terminal."""


@dataclass(frozen=True)
class LocalCheckpoint:
    name: str
    """What clients call it: the Hugging Face id, or the folder's name."""
    folder: Path
    is_trusted: bool = False
    """Its own Python may run: the operator has named this repository and commit."""


def locate_model(name_or_path: str, token: str | None, on_progress: OnProgress) -> LocalCheckpoint:
    """Raises CannotStart (neither a folder nor an id), DownloadFailed and its kin, or InvalidModel."""
    located = _find_local(name_or_path, "model") or _download(name_or_path, "model", token, on_progress)
    check_model_folder(located.folder, is_trusted=located.is_trusted)
    return located


def locate_sae(name_or_path: str, token: str | None, on_progress: OnProgress) -> LocalCheckpoint:
    """A folder, or `owner/repo/path/inside` (Gemma Scope: `google/gemma-scope-2b-pt-res/layer_20/width_16k/…`).

    Raises CannotStart (neither), DownloadFailed and its kin, or InvalidSae.
    """
    located = _find_local(name_or_path, "SAE") or _download(name_or_path, "sae", token, on_progress)
    check_sae_folder(located.folder)
    return located


def _find_local(name_or_path: str, label: str) -> LocalCheckpoint | None:
    path = Path(os.path.expanduser(name_or_path))  # which leaves `~stranger` as it is, where Path's own raises
    if path.is_file():
        raise CannotStart(f"{label} {name_or_path!r} is a file; give the folder that holds its files")
    return LocalCheckpoint(path.resolve().name, path.resolve()) if name_or_path and path.is_dir() else None


def _download(name_or_path: str, kind: ArtifactKind, token: str | None, on_progress: OnProgress) -> LocalCheckpoint:
    wanted, settings = _parse_name(name_or_path, kind), Settings.load()
    order = msgspec.structs.replace(
        build_command("fetch", wanted, settings), token=token, tries=_TRIES, accepts_cached=True
    )
    fetched = asyncio.run(_run_download(order, on_progress))
    is_trusted = f"{wanted.repository}@{fetched.commit}" in settings.trust_remote_code
    return LocalCheckpoint(wanted.name, Path(fetched.folder), is_trusted)


def _parse_name(name_or_path: str, kind: ArtifactKind) -> DownloadSpec:
    try:
        return parse_spec(name_or_path, kind)
    except InvalidRequest as error:
        what = "model" if kind == "model" else "SAE"
        raise CannotStart(
            f"{what} {name_or_path!r} is neither a folder here nor a Hugging Face id (owner/name): {error.message}"
        ) from error


async def _run_download(command: RepositoryCommand, on_progress: OnProgress) -> FetchResult:
    stage = f"downloading {command.spec.repository}"
    async with aclosing(run_worker(command)) as told:
        async for news in told:
            if isinstance(news, FetchResult):
                size = sum(file.size for file in news.files)
                on_progress(stage, size, size)
                return news
            if isinstance(news, WorkerFailure):
                raise _to_error(news)
            if isinstance(news, TransferProgress):
                on_progress(stage, news.done, news.total)
    raise DownloadFailed(
        f"{command.spec.name}: the download was ended from outside; start again, it goes on where it was"
    )


def _to_error(failure: WorkerFailure) -> MillmError:
    """What could have been meant as a folder says so."""
    code, message = failure.problem.code, failure.problem.message
    return error_from_code(
        code, f"{message}; nor is there such a folder here" if code == RepositoryNotFound.code else message
    )


@dataclass(frozen=True)
class LibraryLocation:
    """A folder that holds a model or an SAE, whole or not."""

    id: str
    origin: Origin
    folder: Path
    files: dict[str, File] = field(default_factory=dict)
    """Its own, by their paths in it; of an SAE those right in its folder, or those it takes to convert it."""
    problem: str | None = None
    """Why it cannot be looked into."""
    revision: Revision | None = None
    """What of the cache it is, or is part of."""
    subpath: str = ""
    """An SAE's folder in the repository, or the file that it is."""
    layout: str | None = None
    """Of an SAE; None: what is there is none."""

    @property
    def names(self) -> tuple[str, ...]:
        """All that find it; the first is its id."""
        if self.revision is None:
            return (self.id,)
        named = (*self.revision.refs, self.revision.commit)
        return tuple(public_id(self.revision.repository, name, self.subpath) for name in named)


def public_id(repository: str, revision: str, subpath: str = "") -> str:
    """As `hub.jobs.Asked.name`."""
    whole = f"{repository}/{subpath}" if subpath else repository
    return whole if revision == "main" else f"{whole}@{revision}"


def scan_models(links: Path, builtin: Mapping[str, Path], branches: BranchNames) -> Iterator[LibraryLocation]:
    yield from _scan_links(links, builtin)
    for revision in hf_cache.scan_revisions(branches):
        if revision.problem or _holds_model(revision.files):
            yield _cached_location(revision)


def scan_saes(links: Path, builtin: Mapping[str, Path], branches: BranchNames) -> Iterator[LibraryLocation]:
    yield from map(_with_sae_layout, _scan_links(links, builtin))
    for revision in hf_cache.scan_revisions(branches):
        for inside, (layout, files) in find_saes(revision.files).items():
            yield replace(_cached_location(revision, inside), files=files, layout=layout)


def read_model_link(link: Path) -> LibraryLocation:
    """The folder a link of the library leads to, under the link's name."""
    return _scan_folder(link.name, "imported", link)


def read_sae_link(link: Path) -> LibraryLocation:
    return _with_sae_layout(read_model_link(link))


def _scan_links(links: Path, builtin: Mapping[str, Path]) -> Iterator[LibraryLocation]:
    for name, folder in builtin.items():
        if folder.is_dir():  # the demo's is made when it is first asked for
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
    """The one right in the folder, whatever else is below it."""
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
    """Also of what has only begun to arrive: its weights, or a link to nothing, without a config.json yet."""
    root = group_by_folder(files).get("", {})
    if detect_layout(root):
        return False
    return "config.json" in root or any(".safetensors" in name for name in root)
