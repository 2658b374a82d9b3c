"""The worker process of one download, preview or search: a command on standard input, events on standard output.

Standard input stays open: its end means that the parent is gone, and ends the process too. huggingface_hub, which only
this module, `hf_client` and `repository` import, transfers the bytes; each file is verified here.
"""

import contextlib
import hashlib
import os
import shutil
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from functools import partial
from pathlib import Path
from typing import Any, Literal

import msgspec
from huggingface_hub import (
    constants,
    get_hf_file_metadata,
    get_session,
    get_token,
    hf_hub_download,
    hf_hub_url,
    hf_raise_for_status,
)
from huggingface_hub.errors import GatedRepoError
from huggingface_hub.utils import logging as hub_logging

from millm.errors import HashMismatch, InsufficientDisk
from millm.hub import hf_cache
from millm.hub.catalog import count_saes
from millm.hub.hf_client import (
    HUB_ERRORS,
    RetryPolicy,
    RetryWait,
    is_offline,
    is_wrong_length,
    problem_from_error,
    repository_url,
    search_problem_from_error,
)
from millm.hub.home import fsync
from millm.hub.jobs import (
    DownloadPreview,
    DownloadSpec,
    FetchResult,
    InstalledFile,
    JobState,
    ModelSearchCommand,
    ModelSearchResult,
    PreviewFile,
    PreviewResult,
    RepositoryCommand,
    TransferProgress,
    WorkerEvent,
    WorkerFailure,
)
from millm.hub.repository import Listing, RemoteFile, list_repository, search_models

FileStage = Literal["moving", "verifying", "done"]


class ProgressTracker:
    """The progress of one download, written by its threads and reported five times a second."""

    def __init__(self, spec: DownloadSpec) -> None:
        self._spec = spec
        self._lock = threading.Lock()
        self._listing: Listing | None = None
        self._stages: dict[RemoteFile, FileStage] = {}
        self._waits: dict[str, RetryWait] = {}
        self._attempt = 1

    def set_listing(self, listing: Listing) -> None:
        with self._lock:
            self._listing = listing

    def set_stage(self, file: RemoteFile, stage: FileStage) -> None:
        with self._lock:
            self._stages[file] = stage

    def set_wait(self, task: str, wait: RetryWait | None) -> None:
        """`task` waits for another try; None: the try starts now."""
        with self._lock:
            if wait is None:
                del self._waits[task]
            else:
                self._waits[task] = wait
                self._attempt = max(self._attempt, wait.attempt)

    def progress(self) -> TransferProgress:
        with self._lock:
            listing, stages, waits = self._listing, dict(self._stages), list(self._waits.values())
        first = min(waits, key=lambda wait: wait.until, default=None)
        active = [file for file, stage in stages.items() if stage == "moving"]
        is_waiting = first is not None and len(waits) >= len(active)
        selected = listing.selected if listing else ()
        is_running = bool(active) or len(stages) < len(selected)
        state: JobState = "resolving" if listing is None else "running" if is_running else "verifying"
        return TransferProgress(
            state="waiting" if is_waiting else state,
            commit=listing.commit if listing else None,
            done=_bytes_done(listing, stages) if listing else 0,
            total=sum(file.size for file in selected),
            files_done=sum(stage == "done" for stage in stages.values()),
            files_total=len(selected),
            attempt=self._attempt,
            retry_in=max(0.0, first.until - time.monotonic()) if first and is_waiting else None,
            problem=problem_from_error(first.error, self._spec) if first and is_waiting else None,
        )


def _bytes_done(listing: Listing, stages: dict[RemoteFile, FileStage]) -> int:
    """Bytes on the disk, of complete files and of incomplete ones."""
    incomplete = _incomplete_bytes(listing.blobs)
    return sum(
        file.size
        if stages.get(file, "moving") != "moving" or listing.is_cached(file)
        else min(file.size, incomplete.get(file.hash, 0))
        for file in listing.selected
    )


def _incomplete_bytes(folder: Path) -> dict[str, int]:
    """Hash → bytes, of any process's downloads."""
    sizes: dict[str, int] = {}
    for path in folder.glob("*.incomplete"):
        hash_ = path.name.partition(".")[0]
        with contextlib.suppress(FileNotFoundError):  # it has just been renamed
            sizes[hash_] = max(sizes.get(hash_, 0), path.stat().st_size)
    return sizes


_PARALLEL_FILES = 4
_SHA1_DIGITS = 40


def fetch(command: RepositoryCommand, token: str | None, tracker: ProgressTracker) -> FetchResult:
    """Raises `HUB_ERRORS`; the cache then holds no wrong file."""
    cached = _find_cached(command) if command.accepts_cached else None
    retry_policy = RetryPolicy(command.tries, command.backoff)
    listing_policy = RetryPolicy(1, command.backoff) if cached else retry_policy
    try:
        listing = listing_policy.call(partial(list_repository, command, token), partial(tracker.set_wait, "listing"))
    except HUB_ERRORS as error:
        if cached and is_offline(error):
            return cached
        raise
    if cached and cached.commit == listing.commit and listing.missing_bytes == 0:
        return cached
    tracker.set_listing(listing)
    hf_cache.remove_orphans(Path(constants.HF_HUB_CACHE), command.spec.repository)
    check_disk_space(command.spec, listing.missing_bytes, command.disk_reserve)
    download = partial(_download_verified, listing, token=token, retry_policy=retry_policy, tracker=tracker)
    pool = ThreadPoolExecutor(_PARALLEL_FILES)
    for done in as_completed([pool.submit(download, file) for file in listing.selected]):
        done.result()  # raises the first failure; the process then exits, and with it the other threads
    _finish_snapshot(listing, command.spec.revision)
    files = tuple(InstalledFile(path=file.path, size=file.size, hash=file.hash) for file in listing.selected)
    return FetchResult(commit=listing.commit, folder=str(listing.snapshot / command.spec.path), files=files)


def check_disk_space(spec: DownloadSpec, bytes_needed: int, reserve: int) -> None:
    """Raises InsufficientDisk with the sizes needed, reserved and free."""
    free = disk_free()
    if bytes_needed and bytes_needed + reserve > free:
        raise InsufficientDisk(
            f"{spec.name} needs {_format_size(bytes_needed)}, {_format_size(reserve)} stay free"
            f" (MILLM_DOWNLOAD_RESERVE_BYTES), and the disk has {_format_size(free)} free; make room,"
            " or set HF_HOME to a folder on another disk"
        )


def disk_free() -> int:
    """Bytes on the disk of the cache, which may not exist yet."""
    cache = Path(constants.HF_HUB_CACHE)
    return shutil.disk_usage(next(folder for folder in (cache, *cache.parents) if folder.exists())).free


def _format_size(size: int) -> str:
    return f"{size / 1e9:,.1f} GB" if size >= 1e9 else f"{size / 1e6:,.1f} MB"


def _find_cached(command: RepositoryCommand) -> FetchResult | None:
    """A snapshot of an earlier download by any program; not verified, which would need the hub."""
    spec, cache = command.spec, Path(constants.HF_HUB_CACHE)
    commit = hf_cache.resolve_commit(cache, spec.repository, spec.revision)
    if commit is None:
        return None
    folder = hf_cache.snapshot_folder(cache, spec.repository, commit) / spec.path
    return FetchResult(commit=commit, folder=str(folder), files=()) if folder.is_dir() else None


def _download_verified(
    listing: Listing, file: RemoteFile, *, token: str | None, retry_policy: RetryPolicy, tracker: ProgressTracker
) -> None:
    """A wrong file is downloaded once more. Raises HashMismatch."""
    path = listing.snapshot / file.path
    download = partial(hf_hub_download, listing.repository, file.path, revision=listing.commit, token=token or False)
    for _ in range(2):
        tracker.set_stage(file, "moving")
        try:
            downloaded = Path(retry_policy.call(download, partial(tracker.set_wait, file.path)))
        except OSError as error:
            if not is_wrong_length(error):
                raise
            continue
        tracker.set_stage(file, "verifying")
        if downloaded == path and matches_hash(path, file.size, file.hash):
            fsync(path)
            tracker.set_stage(file, "done")
            return
        _discard(downloaded, listing)
    raise HashMismatch(
        f"{listing.repository}: checksum mismatch for {file.path} after two downloads from {constants.ENDPOINT};"
        " try again later"
    )


def matches_hash(path: Path, size: int, expected: str) -> bool:
    """`expected`: sha256, or git's sha1 of a blob, in hexadecimal digits."""
    if not path.is_file() or path.stat().st_size != size:
        return False
    sha1 = partial(hashlib.sha1, b"blob %d\0" % size, usedforsecurity=False)
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, sha1 if len(expected) == _SHA1_DIGITS else hashlib.sha256)
    return digest.hexdigest() == expected


def _discard(downloaded: Path, listing: Listing) -> None:
    """Remove a link and its target, also where a hub that names another commit has put it."""
    downloaded.resolve().unlink(missing_ok=True)
    downloaded.unlink(missing_ok=True)
    (listing.blobs.parent / "refs" / listing.commit).unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # the folder holds other files
        for folder in downloaded.relative_to(listing.snapshot.parent).parents[:-1]:
            (listing.snapshot.parent / folder).rmdir()


def _finish_snapshot(listing: Listing, revision: str) -> None:
    """Flush the folders; then the revision refers to this commit."""
    folders = {(listing.snapshot / file.path).parent for file in listing.selected}
    for folder in (*folders, listing.snapshot, listing.blobs):
        fsync(folder)
    hf_cache.write_ref(Path(constants.HF_HUB_CACHE), listing.repository, revision, listing.commit)


_TORCH_DTYPES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "F8_E4M3": "float8_e4m3fn",
           "F8_E5M2": "float8_e5m2", "I8": "int8", "U8": "uint8", "I32": "int32"}  # fmt: skip
"""safetensors' names → torch's."""
_MAX_CONFIG_BYTES = 1 << 20


def build_preview(command: RepositoryCommand, token: str | None) -> DownloadPreview:
    """Raises the errors of `list_repository`."""
    listing = list_repository(command, token)
    has_access = not listing.info.gated or _has_read_access(listing, token)
    config = (_fetch_config(listing, token) if has_access else {}) or listing.info.config or {}
    files = tuple(
        PreviewFile(path=file.path, size=file.size, is_here=listing.is_cached(file))
        for file in sorted(listing.selected, key=lambda file: file.path)
    )
    return DownloadPreview(
        asked=command.spec,
        name=command.spec.name,
        commit=listing.commit,
        files=files,
        size=sum(file.size for file in listing.selected),
        to_download=listing.missing_bytes,
        skipped=sum(file.size for file in listing.others),
        licence=_licence(listing),
        gated=bool(listing.info.gated),
        has_access=has_access,
        link=repository_url(command.spec),
        disk_free=disk_free(),
        disk_reserve=command.disk_reserve,
        **(_model_facts(listing, config) if command.spec.kind == "model" else {}),
    )


def _model_facts(listing: Listing, config: dict[str, Any]) -> dict[str, Any]:
    counts = listing.info.safetensors.parameters if listing.info.safetensors else {}
    main_type = max(counts, key=lambda name: counts[name], default=None)
    code = any(file.path.endswith(".py") for file in (*listing.selected, *listing.others))
    return {
        "architecture": next(iter(config.get("architectures") or ()), None),
        "dtype": _TORCH_DTYPES.get(main_type, main_type.lower()) if main_type else config.get("dtype"),
        "parameters": listing.info.safetensors.total if listing.info.safetensors else None,
        "quantization": _quantization(config.get("quantization_config") or {}),
        "needs_remote_code": code and "auto_map" in config,
        "known_saes": count_saes(listing.repository),
    }


def _quantization(quantization_config: dict[str, Any]) -> str | None:
    """`gptq 4-bit`, `bitsandbytes 8-bit`, `fp8`."""
    bits = quantization_config.get("bits") or (
        4 if quantization_config.get("load_in_4bit") else 8 if quantization_config.get("load_in_8bit") else None
    )
    words = [str(quantization_config.get("quant_method") or ""), f"{bits}-bit" if bits else ""]
    return " ".join(word for word in words if word) or None


def _licence(listing: Listing) -> str | None:
    card = dict(vars(listing.info.card_data)) if listing.info.card_data else {}
    tagged = (tag.removeprefix("license:") for tag in listing.info.tags or () if tag.startswith("license:"))
    licence = card.get("license") or next(tagged, None)
    return card.get("license_name") or licence if licence == "other" else licence


def _has_read_access(listing: Listing, token: str | None) -> bool:
    try:
        get_hf_file_metadata(_url(listing, listing.selected[0]), token=token or False)
    except GatedRepoError:
        return False
    return True


def _fetch_config(listing: Listing, token: str | None) -> dict[str, Any]:
    """The model's own config.json; the hub's copy is a part of it only."""
    file = next((file for file in listing.selected if file.path == "config.json"), None)
    if file is None or file.size > _MAX_CONFIG_BYTES:
        return {}
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    response = get_session().get(_url(listing, file), headers=headers, timeout=constants.HF_HUB_ETAG_TIMEOUT)
    hf_raise_for_status(response)
    config = response.json()
    return config if isinstance(config, dict) else {}


def _url(listing: Listing, file: RemoteFile) -> str:
    return hf_hub_url(listing.repository, file.path, revision=listing.commit)


_TICK_SECONDS = 0.2
_CHUNK = 1 << 16
"""Bytes between writes to the disk; huggingface_hub's 10 MB take ten seconds on a slow line."""


def main() -> None:
    hub_logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    constants.DOWNLOAD_CHUNK_SIZE = _CHUNK
    line = sys.stdin.buffer.readline()
    if not line:
        return  # the parent has exited
    command = msgspec.json.decode(line, type=RepositoryCommand | ModelSearchCommand)
    threading.Thread(target=_exit_with_parent, daemon=True).start()
    _write_event(_run_search(command) if isinstance(command, ModelSearchCommand) else _run_command(command))
    os._exit(0)  # without waiting for threads that still download


def _run_search(command: ModelSearchCommand) -> WorkerEvent:
    try:
        return ModelSearchResult(models=search_models(command, command.token or get_token()))
    except Exception as error:  # noqa: BLE001  the edge of the process, as below
        return WorkerFailure(problem=search_problem_from_error(error))


def _run_command(command: RepositoryCommand) -> WorkerEvent:
    tracker = ProgressTracker(command.spec)
    threading.Thread(target=_report_progress, args=(tracker,), daemon=True).start()
    token = command.token or get_token()
    try:
        if command.action == "fetch":
            return fetch(command, token, tracker)
        retry_policy = RetryPolicy(command.tries, command.backoff)
        return PreviewResult(
            preview=retry_policy.call(partial(build_preview, command, token), partial(tracker.set_wait, "preview"))
        )
    except Exception as error:  # noqa: BLE001  the edge of the process: every error becomes one sentence
        return WorkerFailure(problem=problem_from_error(error, command.spec))


def _exit_with_parent() -> None:
    sys.stdin.buffer.read()
    os._exit(1)


def _report_progress(tracker: ProgressTracker) -> None:
    while True:
        _write_event(tracker.progress())
        time.sleep(_TICK_SECONDS)


_output_lock = threading.Lock()


def _write_event(event: WorkerEvent) -> None:
    with _output_lock, contextlib.suppress(BrokenPipeError):  # the parent has exited
        sys.stdout.buffer.write(msgspec.json.encode(event) + b"\n")
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
