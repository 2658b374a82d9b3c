"""A name on the command line → a folder on disk: a local folder as it is, a Hugging Face id through its cache."""

import asyncio
import os
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path

import msgspec

from millm.errors import CannotStart, DownloadFailed, InvalidRequest, MillmError, RepositoryNotFound, error_from_code
from millm.hub.asking import parse_spec
from millm.hub.checkpoint import check_model_folder, check_sae_folder
from millm.hub.jobs import ArtifactKind, DownloadSpec
from millm.hub.orders import FetchResult, RepositoryCommand, TransferProgress, WorkerFailure
from millm.hub.worker import build_command, run_worker
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
