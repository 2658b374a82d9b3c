"""A name on the command line → a folder on disk: a local folder as it is, a Hugging Face id through its cache."""

import asyncio
import os
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path

from msgspec.structs import replace

from millm.errors import CannotStart, DownloadFailed, InvalidRequest, MillmError, RepositoryNotFound, from_code
from millm.hub.asking import asked_for
from millm.hub.checkpoint import check_checkpoint, check_sae
from millm.hub.jobs import Asked, Kind
from millm.hub.orders import Fetched, Moved, Order, Refused
from millm.hub.worker import obey, order_of
from millm.settings import Settings

OnProgress = Callable[[str, int, int], None]
"""(stage, bytes done, bytes in all); called a few times a second, and may raise to give up."""

_TRIES = 3
"""Somebody waits before a terminal."""


@dataclass(frozen=True)
class Located:
    name: str
    """What clients call it: the Hugging Face id, or the folder's name."""
    folder: Path
    is_trusted: bool = False
    """Its own Python may run: the operator has named this repository and commit."""


def locate_model(asked: str, token: str | None, on_progress: OnProgress) -> Located:
    """Raises CannotStart (neither a folder nor an id), DownloadFailed and its kin, or InvalidModel."""
    located = _local(asked, "model") or _on_hub(asked, "model", token, on_progress)
    check_checkpoint(located.folder, is_trusted=located.is_trusted)
    return located


def locate_sae(asked: str, token: str | None, on_progress: OnProgress) -> Located:
    """A folder, or `owner/repo/path/inside` (Gemma Scope: `google/gemma-scope-2b-pt-res/layer_20/width_16k/…`).

    Raises CannotStart (neither), DownloadFailed and its kin, or InvalidSae.
    """
    located = _local(asked, "SAE") or _on_hub(asked, "sae", token, on_progress)
    check_sae(located.folder)
    return located


def _local(asked: str, what: str) -> Located | None:
    path = Path(os.path.expanduser(asked))  # which leaves `~stranger` as it is, where Path's own raises
    if path.is_file():
        raise CannotStart(f"{what} {asked!r} is a file; give the folder that holds its files")
    return Located(path.resolve().name, path.resolve()) if asked and path.is_dir() else None


def _on_hub(asked: str, kind: Kind, token: str | None, on_progress: OnProgress) -> Located:
    wanted, settings = _wanted(asked, kind), Settings.load()
    order = replace(order_of("fetch", wanted, settings), token=token, tries=_TRIES, accepts_cached=True)
    fetched = asyncio.run(_fetched(order, on_progress))
    is_trusted = f"{wanted.repository}@{fetched.commit}" in settings.trust_remote_code
    return Located(wanted.name, Path(fetched.folder), is_trusted)


def _wanted(asked: str, kind: Kind) -> Asked:
    try:
        return asked_for(asked, kind)
    except InvalidRequest as error:
        what = "model" if kind == "model" else "SAE"
        raise CannotStart(
            f"{what} {asked!r} is neither a folder here nor a Hugging Face id (owner/name): {error.message}"
        ) from error


async def _fetched(order: Order, on_progress: OnProgress) -> Fetched:
    stage = f"downloading {order.asked.repository}"
    async with aclosing(obey(order)) as told:
        async for news in told:
            if isinstance(news, Fetched):
                size = sum(file.size for file in news.files)
                on_progress(stage, size, size)
                return news
            if isinstance(news, Refused):
                raise _refused(news)
            if isinstance(news, Moved):
                on_progress(stage, news.done, news.total)
    raise DownloadFailed(
        f"{order.asked.name}: the download was ended from outside; start again, it goes on where it was"
    )


def _refused(news: Refused) -> MillmError:
    """What could have been meant as a folder says so."""
    code, message = news.problem.code, news.problem.message
    return from_code(
        code, f"{message}; nor is there such a folder here" if code == RepositoryNotFound.code else message
    )
