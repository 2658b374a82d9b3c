"""One download, in the process that is for it: list, check the disk, bring file by file, compare each with its hash.

huggingface_hub does authorisation, resuming and bytes; what a file is worth is decided here.

How far the files of one download are, written by its threads and read five times a second.

What a download would bring: sizes, licence, access, and what the model says of itself.

Runs in the process that asks the hub, and writes nothing to the disk.

The process of one download, one preview or one search: an order on standard input, news on standard output.

It and what it imports alone know `huggingface_hub`. Standard input stays open: its end means that whoever ordered is
gone, and ends the process too.
"""

import contextlib
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
from millm.hub.checkpoint import fsync, matches_hash
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
        """`what` is not tried again before `wait` is over; None: it is tried now."""
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
        wanted = listing.selected if listing else ()
        return TransferProgress(
            state="waiting" if is_waiting else _job_state(listing, stages, active),
            commit=listing.commit if listing else None,
            done=_bytes_done(listing, stages) if listing else 0,
            total=sum(file.size for file in wanted),
            files_done=sum(stage == "done" for stage in stages.values()),
            files_total=len(wanted),
            attempt=self._attempt,
            retry_in=max(0.0, first.until - time.monotonic()) if first and is_waiting else None,
            problem=problem_from_error(first.error, self._spec) if first and is_waiting else None,
        )


def _job_state(listing: Listing | None, stages: dict[RemoteFile, FileStage], active: list[RemoteFile]) -> JobState:
    if listing is None:
        return "resolving"
    return "running" if active or len(stages) < len(listing.selected) else "verifying"


def _bytes_done(listing: Listing, stages: dict[RemoteFile, FileStage]) -> int:
    """Bytes on the disk: of files that are there, and of what has come of the others."""
    coming = _incomplete_bytes(listing.blobs)
    return sum(
        file.size
        if stages.get(file, "moving") != "moving" or listing.is_cached(file)
        else min(file.size, coming.get(file.hash, 0))
        for file in listing.selected
    )


def _incomplete_bytes(folder: Path) -> dict[str, int]:
    """Hash → bytes; whoever brings them, one at a time can."""
    found: dict[str, int] = {}
    for path in folder.glob("*.incomplete"):
        hash_ = path.name.partition(".")[0]
        found[hash_] = max(found.get(hash_, 0), _size_or_zero(path))
    return found


def _size_or_zero(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:  # it has just become whole
        return 0


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
    hf_cache.remove_orphans(Path(constants.HF_HUB_CACHE), command.spec.repository)
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
    commit = hf_cache.resolve_commit(cache, asked.repository, asked.revision)
    if commit is None:
        return None
    folder = hf_cache.snapshot_folder(cache, asked.repository, commit) / asked.path
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
    hf_cache.write_ref(Path(constants.HF_HUB_CACHE), listed.repository, revision, listed.commit)


_TORCH_DTYPES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "F8_E4M3": "float8_e4m3fn",
           "F8_E5M2": "float8_e5m2", "I8": "int8", "U8": "uint8", "I32": "int32"}  # fmt: skip
"""safetensors' names → torch's."""
_MAX_CONFIG_BYTES = 1 << 20


def build_preview(command: RepositoryCommand, token: str | None) -> DownloadPreview:
    """Raises what `listing` does."""
    listed = list_repository(command, token)
    has_access = not listed.info.gated or _has_read_access(listed, token)
    config = _fetch_config(listed, token) if has_access else {}
    config = config or (listed.info.config or {})
    files = tuple(
        PreviewFile(path=file.path, size=file.size, is_here=listed.is_cached(file))
        for file in sorted(listed.selected, key=lambda file: file.path)
    )
    return DownloadPreview(
        asked=command.spec,
        name=command.spec.name,
        commit=listed.commit,
        files=files,
        size=_sum_sizes(listed.selected),
        to_download=listed.missing_bytes,
        skipped=_sum_sizes(listed.others),
        licence=_licence(listed),
        gated=bool(listed.info.gated),
        has_access=has_access,
        link=repository_url(command.spec),
        disk_free=disk_free(),
        disk_reserve=command.disk_reserve,
        **(_model_facts(listed, config) if command.spec.kind == "model" else {}),
    )


def _model_facts(listed: Listing, config: dict[str, Any]) -> dict[str, Any]:
    counts = listed.info.safetensors.parameters if listed.info.safetensors else {}
    main_type = max(counts, key=lambda name: counts[name], default=None)
    code = any(file.path.endswith(".py") for file in (*listed.selected, *listed.others))
    return {
        "architecture": next(iter(config.get("architectures") or ()), None),
        "dtype": _TORCH_DTYPES.get(main_type, main_type.lower()) if main_type else config.get("dtype"),
        "parameters": listed.info.safetensors.total if listed.info.safetensors else None,
        "quantization": _quantization(config.get("quantization_config") or {}),
        "needs_remote_code": code and "auto_map" in config,
        "known_saes": count_saes(listed.repository),
    }


def _quantization(quantization_config: dict[str, Any]) -> str | None:
    """`gptq 4-bit`, `bitsandbytes 8-bit`, `fp8`."""
    bits = quantization_config.get("bits") or (
        4 if quantization_config.get("load_in_4bit") else 8 if quantization_config.get("load_in_8bit") else None
    )
    words = [str(quantization_config.get("quant_method") or ""), f"{bits}-bit" if bits else ""]
    return " ".join(word for word in words if word) or None


def _licence(listed: Listing) -> str | None:
    card = dict(vars(listed.info.card_data)) if listed.info.card_data else {}
    of_tags = (tag.removeprefix("license:") for tag in listed.info.tags or () if tag.startswith("license:"))
    named = card.get("license") or next(of_tags, None)
    return card.get("license_name") or named if named == "other" else named


def _has_read_access(listed: Listing, token: str | None) -> bool:
    try:
        get_hf_file_metadata(_url(listed, listed.selected[0]), token=token or False)
    except GatedRepoError:
        return False
    return True


def _fetch_config(listed: Listing, token: str | None) -> dict[str, Any]:
    """The model's own; the hub's copy keeps a part of it only."""
    file = next((file for file in listed.selected if file.path == "config.json"), None)
    if file is None or file.size > _MAX_CONFIG_BYTES:
        return {}
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    answer = get_session().get(_url(listed, file), headers=headers, timeout=constants.HF_HUB_ETAG_TIMEOUT)
    hf_raise_for_status(answer)
    found = answer.json()
    return found if isinstance(found, dict) else {}


def _url(listed: Listing, file: RemoteFile) -> str:
    return hf_hub_url(listed.repository, file.path, revision=listed.commit)


def _sum_sizes(files: tuple[RemoteFile, ...]) -> int:
    return sum(file.size for file in files)


_TICK_SECONDS = 0.2
_CHUNK = 1 << 16
"""Bytes after which what came is written; huggingface_hub's 10 MB take a slow line ten seconds."""


def main() -> None:
    hub_logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    constants.DOWNLOAD_CHUNK_SIZE = _CHUNK
    line = sys.stdin.buffer.readline()
    if not line:
        return  # who wanted to order has gone
    order = msgspec.json.decode(line, type=RepositoryCommand | ModelSearchCommand)
    threading.Thread(target=_exit_with_parent, daemon=True).start()
    _write_event(_run_search(order) if isinstance(order, ModelSearchCommand) else _run_with_progress(order))
    os._exit(0)  # without waiting for threads that still download what nobody wants any more


def _run_search(command: ModelSearchCommand) -> WorkerEvent:
    try:
        return ModelSearchResult(models=search_models(command, command.token or get_token()))
    except Exception as error:  # noqa: BLE001  as below
        return WorkerFailure(problem=search_problem_from_error(error))


def _run_with_progress(command: RepositoryCommand) -> WorkerEvent:
    ledger = ProgressTracker(command.spec)
    threading.Thread(target=_report_progress, args=(ledger,), daemon=True).start()
    return _run_command(command, ledger)


def _run_command(command: RepositoryCommand, tracker: ProgressTracker) -> WorkerEvent:
    token = command.token or get_token()
    try:
        if command.action == "fetch":
            return fetch(command, token, tracker)
        patience = RetryPolicy(command.tries, command.backoff)
        return PreviewResult(
            preview=patience.call(partial(build_preview, command, token), partial(tracker.set_wait, "preview"))
        )
    except Exception as error:  # noqa: BLE001  the edge of the process: whatever it was is told as one sentence
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
    with _output_lock, contextlib.suppress(BrokenPipeError):  # then nobody waits for it any more
        sys.stdout.buffer.write(msgspec.json.encode(event) + b"\n")
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
