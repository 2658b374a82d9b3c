"""One download, in the process that is for it: list, check the disk, bring file by file, compare each with its hash.

huggingface_hub does authorisation, resuming and bytes; what a file is worth is decided here.
"""

import contextlib
import shutil
from concurrent.futures import ThreadPoolExecutor, as_completed
from functools import partial
from pathlib import Path

from huggingface_hub import constants, hf_hub_download

from millm.errors import HashMismatch, InsufficientDisk
from millm.hub import blobs
from millm.hub.installed import InstalledFile
from millm.hub.jobs import Asked
from millm.hub.ledger import Ledger
from millm.hub.offered import Listing, RemoteFile, listing
from millm.hub.orders import Fetched, Order
from millm.hub.patience import Patience
from millm.hub.refusals import FAILURES, is_offline, is_wrong_length
from millm.hub.verify import flush, is_right

_AT_ONCE = 4
"""Files."""


def fetch(order: Order, token: str | None, ledger: Ledger) -> Fetched:
    """Raises what `refusals.FAILURES` names; then nothing that is wrong is in the cache."""
    found = _cached(order) if order.accepts_cached else None
    patience = Patience(order.tries, order.backoff)
    resolving = Patience(1, order.backoff) if found else patience
    try:
        listed = resolving.keep_trying(partial(listing, order, token), partial(ledger.waits, "listing"))
    except FAILURES as error:
        if found and is_offline(error):
            return found
        raise
    if found and found.commit == listed.commit and listed.missing == 0:
        return found
    ledger.resolved(listed)
    blobs.remove_orphans(Path(constants.HF_HUB_CACHE), order.asked.repository)
    require_disk(order.asked, listed.missing, order.reserve)
    _bring_all(listed, token, patience, ledger)
    _settle(listed, order.asked.revision)
    files = tuple(InstalledFile(path=file.path, size=file.size, hash=file.hash) for file in listed.wanted)
    return Fetched(commit=listed.commit, folder=str(listed.snapshot / order.asked.path), files=files)


def require_disk(asked: Asked, needed: int, reserve: int) -> None:
    """Raises InsufficientDisk with the three numbers."""
    free = disk_free()
    if needed and needed + reserve > free:
        raise InsufficientDisk(
            f"{asked.name} needs {_told(needed)}, {_told(reserve)} stay free (MILLM_DOWNLOAD_RESERVE_BYTES), and the"
            f" disk has {_told(free)} free; make room, or set HF_HOME to a folder on another disk"
        )


def disk_free() -> int:
    """Bytes, where the cache is or will be."""
    cache = Path(constants.HF_HUB_CACHE)
    return shutil.disk_usage(next(folder for folder in (cache, *cache.parents) if folder.exists())).free


def _told(size: int) -> str:
    return f"{size / 1e9:,.1f} GB" if size >= 1e9 else f"{size / 1e6:,.1f} MB"


def _cached(order: Order) -> Fetched | None:
    """What an earlier download, ours or another's, has left whole, as far as that can be seen without the hub."""
    asked, cache = order.asked, Path(constants.HF_HUB_CACHE)
    commit = blobs.commit_of(cache, asked.repository, asked.revision)
    if commit is None:
        return None
    folder = blobs.snapshot(cache, asked.repository, commit) / asked.path
    return Fetched(commit=commit, folder=str(folder), files=()) if folder.is_dir() else None


def _bring_all(listed: Listing, token: str | None, patience: Patience, ledger: Ledger) -> None:
    """The first failure is raised; its process ends then, and with it the other threads."""
    pool = ThreadPoolExecutor(_AT_ONCE)
    bring = partial(_bring, listed, token=token, patience=patience, ledger=ledger)
    for done in as_completed([pool.submit(bring, file) for file in listed.wanted]):
        done.result()


def _bring(listed: Listing, file: RemoteFile, *, token: str | None, patience: Patience, ledger: Ledger) -> None:
    """A file that is wrong gets one more chance. Raises HashMismatch."""
    where = listed.snapshot / file.path
    for _ in range(2):
        ledger.set(file, "moving")
        try:
            came = patience.keep_trying(partial(_download, listed, file.path, token), partial(ledger.waits, file.path))
        except OSError as error:
            if not is_wrong_length(error):
                raise
            continue
        ledger.set(file, "verifying")
        if came == where and is_right(where, file.size, file.hash):
            flush(where)
            ledger.set(file, "done")
            return
        _discard(came, listed)
    raise HashMismatch(
        f"{listed.repository}: {file.path} came wrong twice, compared with the hash that {constants.ENDPOINT} gives;"
        " try again later"
    )


def _download(listed: Listing, path: str, token: str | None) -> Path:
    return Path(hf_hub_download(listed.repository, path, revision=listed.commit, token=token or False))


def _discard(came: Path, listed: Listing) -> None:
    """The link, what it leads to, and where a hub that names another commit has put it."""
    came.resolve().unlink(missing_ok=True)
    came.unlink(missing_ok=True)
    (listed.blobs.parent / "refs" / listed.commit).unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # it holds other files
        for folder in came.relative_to(listed.snapshot.parent).parents[:-1]:
            (listed.snapshot.parent / folder).rmdir()


def _settle(listed: Listing, revision: str) -> None:
    """The names of what is there to the disk; then the revision stands for it, which was another commit until now."""
    folders = {(listed.snapshot / file.path).parent for file in listed.wanted}
    for folder in (*folders, listed.snapshot, listed.blobs):
        flush(folder)
    blobs.remember_commit(Path(constants.HF_HUB_CACHE), listed.repository, revision, listed.commit)
