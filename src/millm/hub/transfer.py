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
from millm.hub.jobs import DownloadSpec
from millm.hub.ledger import ProgressTracker
from millm.hub.offered import Listing, RemoteFile, list_repository
from millm.hub.orders import FetchResult, RepositoryCommand
from millm.hub.patience import RetryPolicy
from millm.hub.refusals import HUB_ERRORS, is_offline, is_wrong_length
from millm.hub.verify import fsync, matches_hash

_PARALLEL_FILES = 4
"""Files."""


def fetch(command: RepositoryCommand, token: str | None, tracker: ProgressTracker) -> FetchResult:
    """Raises what `refusals.FAILURES` names; then nothing that is wrong is in the cache."""
    found = _find_cached(command) if command.accepts_cached else None
    patience = RetryPolicy(command.tries, command.backoff)
    resolving = RetryPolicy(1, command.backoff) if found else patience
    try:
        listed = resolving.call(partial(list_repository, command, token), partial(tracker.set_wait, "listing"))
    except HUB_ERRORS as error:
        if found and is_offline(error):
            return found
        raise
    if found and found.commit == listed.commit and listed.missing_bytes == 0:
        return found
    tracker.set_listing(listed)
    blobs.remove_orphans(Path(constants.HF_HUB_CACHE), command.spec.repository)
    check_disk_space(command.spec, listed.missing_bytes, command.disk_reserve)
    _download_all(listed, token, patience, tracker)
    _finish_snapshot(listed, command.spec.revision)
    files = tuple(InstalledFile(path=file.path, size=file.size, hash=file.hash) for file in listed.selected)
    return FetchResult(commit=listed.commit, folder=str(listed.snapshot / command.spec.path), files=files)


def check_disk_space(spec: DownloadSpec, bytes_needed: int, reserve: int) -> None:
    """Raises InsufficientDisk with the three numbers."""
    free = disk_free()
    if bytes_needed and bytes_needed + reserve > free:
        raise InsufficientDisk(
            f"{spec.name} needs {_format_size(bytes_needed)}, {_format_size(reserve)} stay free (MILLM_DOWNLOAD_RESERVE_BYTES), and the"
            f" disk has {_format_size(free)} free; make room, or set HF_HOME to a folder on another disk"
        )


def disk_free() -> int:
    """Bytes, where the cache is or will be."""
    cache = Path(constants.HF_HUB_CACHE)
    return shutil.disk_usage(next(folder for folder in (cache, *cache.parents) if folder.exists())).free


def _format_size(size: int) -> str:
    return f"{size / 1e9:,.1f} GB" if size >= 1e9 else f"{size / 1e6:,.1f} MB"


def _find_cached(command: RepositoryCommand) -> FetchResult | None:
    """What an earlier download, ours or another's, has left whole, as far as that can be seen without the hub."""
    asked, cache = command.spec, Path(constants.HF_HUB_CACHE)
    commit = blobs.resolve_commit(cache, asked.repository, asked.revision)
    if commit is None:
        return None
    folder = blobs.snapshot_folder(cache, asked.repository, commit) / asked.path
    return FetchResult(commit=commit, folder=str(folder), files=()) if folder.is_dir() else None


def _download_all(listed: Listing, token: str | None, retry_policy: RetryPolicy, tracker: ProgressTracker) -> None:
    """The first failure is raised; its process ends then, and with it the other threads."""
    pool = ThreadPoolExecutor(_PARALLEL_FILES)
    bring = partial(_download_verified, listed, token=token, retry_policy=retry_policy, tracker=tracker)
    for done in as_completed([pool.submit(bring, file) for file in listed.selected]):
        done.result()


def _download_verified(
    listed: Listing, file: RemoteFile, *, token: str | None, retry_policy: RetryPolicy, tracker: ProgressTracker
) -> None:
    """A file that is wrong gets one more chance. Raises HashMismatch."""
    where = listed.snapshot / file.path
    for _ in range(2):
        tracker.set_stage(file, "moving")
        try:
            came = retry_policy.call(partial(_download, listed, file.path, token), partial(tracker.set_wait, file.path))
        except OSError as error:
            if not is_wrong_length(error):
                raise
            continue
        tracker.set_stage(file, "verifying")
        if came == where and matches_hash(where, file.size, file.hash):
            fsync(where)
            tracker.set_stage(file, "done")
            return
        _discard(came, listed)
    raise HashMismatch(
        f"{listed.repository}: {file.path} came wrong twice, compared with the hash that {constants.ENDPOINT} gives;"
        " try again later"
    )


def _download(listed: Listing, path: str, token: str | None) -> Path:
    return Path(hf_hub_download(listed.repository, path, revision=listed.commit, token=token or False))


def _discard(downloaded: Path, listed: Listing) -> None:
    """The link, what it leads to, and where a hub that names another commit has put it."""
    downloaded.resolve().unlink(missing_ok=True)
    downloaded.unlink(missing_ok=True)
    (listed.blobs.parent / "refs" / listed.commit).unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # it holds other files
        for folder in downloaded.relative_to(listed.snapshot.parent).parents[:-1]:
            (listed.snapshot.parent / folder).rmdir()


def _finish_snapshot(listed: Listing, revision: str) -> None:
    """The names of what is there to the disk; then the revision stands for it, which was another commit until now."""
    folders = {(listed.snapshot / file.path).parent for file in listed.selected}
    for folder in (*folders, listed.snapshot, listed.blobs):
        fsync(folder)
    blobs.write_ref(Path(constants.HF_HUB_CACHE), listed.repository, revision, listed.commit)
