"""The download queue: two worker processes at a time, progress events, and jobs that survive a restart.

Only a verified download gets a row in `installed`, in the same transaction as the job's end. Runs on one event loop.
"""

import asyncio
import os
import sys
import time
import uuid
from asyncio.subprocess import PIPE, create_subprocess_exec
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from functools import partial
from math import exp
from pathlib import Path
from typing import Literal

import msgspec
import structlog
from msgspec.structs import replace

from millm.database import Database
from millm.errors import Conflict, DownloadFailed, InvalidSae, JobNotFound, QueueFull, error_from_code
from millm.hub.hf_cache import remove_orphans
from millm.hub.home import Home
from millm.hub.jobs import (
    ACTIVE_STATES,
    DownloadJob,
    DownloadPreview,
    DownloadSpec,
    FetchResult,
    JobState,
    JobStore,
    ModelSearchCommand,
    ModelSearchResult,
    PreviewResult,
    Problem,
    RemoteModel,
    RepositoryCommand,
    TransferProgress,
    WorkerEvent,
    WorkerFailure,
    check_spec,
    file_patterns,
)
from millm.hub.sae_conversion import convert_sae, foreign_layout
from millm.settings import Settings, hf_cache_folder

_SMOOTHING_SECONDS = 3.0
_MIN_SPEED = 1.0
"""Bytes per second."""


class SpeedMeter:
    """Smoothed speed from byte counts; bytes before the first call do not count."""

    def __init__(self) -> None:
        self._last: tuple[int, float] | None = None
        self._speed = 0.0

    def add(self, bytes_done: int, now: float) -> None:
        """`now`: seconds on the monotonic clock."""
        if self._last is not None and now > self._last[1]:
            before, then = self._last
            weight = 1 - exp((then - now) / _SMOOTHING_SECONDS)
            self._speed += weight * (max(0, bytes_done - before) / (now - then) - self._speed)
        self._last = bytes_done, now

    @property
    def speed(self) -> float | None:
        """Bytes per second; None while no bytes arrive."""
        return self._speed if self._speed >= _MIN_SPEED else None

    def seconds_left(self, missing: int) -> float | None:
        return missing / self._speed if self.speed else None


_MAX_LINE_BYTES = 1 << 26
"""A preview lists every file."""
_TOKEN_VARIABLES = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")
"""Removed from the environment: the token goes by the command alone."""
_decode = msgspec.json.Decoder(WorkerEvent).decode


def build_command(action: Literal["fetch", "preview"], spec: DownloadSpec, settings: Settings) -> RepositoryCommand:
    allow_patterns, ignore_patterns = file_patterns(spec, settings.trust_remote_code)
    return RepositoryCommand(
        action=action,
        spec=spec,
        allow_patterns=allow_patterns,
        ignore_patterns=ignore_patterns,
        token=_token(settings),
        disk_reserve=settings.download_reserve_bytes,
        backoff=settings.download_backoff,
    )


def build_search_command(words: str, limit: int, settings: Settings) -> ModelSearchCommand:
    return ModelSearchCommand(words=words, limit=limit, token=_token(settings))


def _token(settings: Settings) -> str | None:
    return settings.hf_token.get_secret_value() if settings.hf_token else None


async def run_worker(command: RepositoryCommand | ModelSearchCommand) -> AsyncGenerator[WorkerEvent, None]:
    """Run the worker and yield its events, the last of which is no `TransferProgress` unless the worker is killed.

    Use it in `aclosing`, which kills the process and with it the download.
    """
    child = await create_subprocess_exec(
        *(sys.executable, "-P", "-m", "millm.hub.download_worker"),
        stdin=PIPE,
        stdout=PIPE,
        limit=_MAX_LINE_BYTES,
        env=_worker_environment(),
        process_group=0,  # so that Ctrl+C is ours alone to handle
    )
    assert child.stdin is not None
    assert child.stdout is not None
    try:
        child.stdin.write(msgspec.json.encode(command) + b"\n")
        async for line in child.stdout:
            yield _decode(line)
    finally:
        if child.returncode is None:
            child.kill()
        child.stdin.close()
        await child.stdout.read()
        await child.wait()


def _worker_environment() -> dict[str, str]:
    """The user's settings of huggingface_hub, without its xet protocol, which bypasses resuming and checks."""
    environment = {name: value for name, value in os.environ.items() if name not in _TOKEN_VARIABLES}
    return {
        **environment,
        "HF_HUB_CACHE": str(hf_cache_folder()),
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    }


log = structlog.get_logger()
MAX_RUNNING = 2
MAX_QUEUED = 32
MAX_JOBS = 100
"""Jobs in the list; the oldest inactive one is dropped."""
_SAVE_BYTES = 64 << 20
_SAVE_SECONDS = 10.0
_PREVIEW_TRIES = 2
"""Few, since a user waits for the answer."""
_WORKER_KILLED = Problem(
    code=DownloadFailed.code, message="the download process was killed; resume it: complete files stay"
)


class Downloads:
    def __init__(self, database: Database, settings: Settings, on_change: Callable[[DownloadJob], None]) -> None:
        """Jobs that were active when the last server stopped become `interrupted`; their incomplete files go."""
        self._settings = settings
        self._on_change = on_change
        self._store = JobStore(database)
        jobs, interrupted = self._store.load()
        self._jobs = {job.id: job for job in sorted(jobs, key=lambda job: job.created)}
        self._last_saved: dict[str, DownloadJob] = {}
        self._running: dict[str, tuple[asyncio.Task[FetchResult | WorkerFailure], asyncio.Task[None]]] = {}
        self._download_slots = asyncio.Semaphore(MAX_RUNNING)
        self._preview_slots = asyncio.Semaphore(MAX_RUNNING)
        self._write_lock = asyncio.Lock()
        self._is_closing = False
        for repository in {job.asked.repository for job in interrupted}:
            remove_orphans(hf_cache_folder(), repository)

    def jobs(self) -> list[DownloadJob]:
        """Newest first."""
        return list(reversed(self._jobs.values()))

    def find(self, id: str) -> DownloadJob:
        """Raises JobNotFound."""
        if id not in self._jobs:
            raise JobNotFound(f"there is no job {id!r}; GET /api/jobs lists them", param="id")
        return self._jobs[id]

    async def preview(self, spec: DownloadSpec) -> DownloadPreview:
        """Raises the mapped errors of the hub."""
        check_spec(spec)
        command = replace(build_command("preview", spec, self._settings), tries=_PREVIEW_TRIES)
        result = await self._request(command, f"{spec.name}: {_WORKER_KILLED.message}")
        assert isinstance(result, PreviewResult)
        return result.preview

    async def search(self, words: str, limit: int) -> tuple[RemoteModel, ...]:
        """Hugging Face's models by words of their names. Raises the mapped errors of the hub."""
        command = build_search_command(words, limit, self._settings)
        result = await self._request(command, "the search process was killed; try again")
        assert isinstance(result, ModelSearchResult)
        return result.models

    async def _request(self, command: RepositoryCommand | ModelSearchCommand, killed_message: str) -> WorkerEvent:
        async with self._preview_slots, aclosing(run_worker(command)) as events:
            async for event in events:
                if isinstance(event, WorkerFailure):
                    raise error_from_code(event.problem.code, event.problem.message)
                if not isinstance(event, TransferProgress):
                    return event
        raise DownloadFailed(killed_message)

    async def start(self, spec: DownloadSpec) -> DownloadJob:
        """An unfinished job for the same spec is resumed, not duplicated. Raises InvalidRequest or QueueFull."""
        check_spec(spec)
        for job in self._jobs.values():
            if job.asked == spec and job.state != "installed":
                return await self._enqueue(job)
        now = time.time()
        return await self._enqueue(
            DownloadJob(id=uuid.uuid4().hex[:12], asked=spec, name=spec.name, state="queued", created=now, updated=now)
        )

    async def resume(self, id: str) -> DownloadJob:
        """Raises JobNotFound, Conflict for an installed job, or QueueFull."""
        job = self.find(id)
        if job.state == "installed":
            raise Conflict(f"{job.name} is installed already; there is nothing to resume")
        return await self._enqueue(job)

    async def cancel(self, id: str) -> DownloadJob:
        """Returns when the job has stopped; inactive jobs are unchanged. Raises JobNotFound."""
        self.find(id)
        if id in self._running:
            self._running[id][0].cancel()
        return await self.wait(id)

    async def wait(self, id: str) -> DownloadJob:
        """Wait until the job is inactive. Raises JobNotFound."""
        self.find(id)
        if id in self._running:
            await asyncio.wait({self._running[id][1]})
        return self.find(id)

    async def close(self) -> None:
        """Interrupt all active jobs."""
        self._is_closing = True
        for work, _ in self._running.values():
            work.cancel()
        await asyncio.gather(*(run for _, run in self._running.values()))

    async def _enqueue(self, job: DownloadJob) -> DownloadJob:
        if job.id in self._running:
            return job
        if sum(other.state == "queued" for other in self._jobs.values()) >= MAX_QUEUED:
            raise QueueFull(f"{MAX_QUEUED} downloads wait already; try again when some have ended")
        work = asyncio.create_task(self._fetch_and_convert(job.id))
        self._running[job.id] = work, asyncio.create_task(self._supervise(job.id, work))
        self._jobs[job.id] = queued = replace(job, state="queued", attempt=1, problem=None, updated=time.time())
        await self._publish(queued)
        await self._drop_oldest()
        return queued

    async def _supervise(self, id: str, task: "asyncio.Task[FetchResult | WorkerFailure]") -> None:
        """From queued to inactive; never cancelled itself."""
        await asyncio.wait({task})
        cleared_fields: dict[str, None] = {"speed": None, "seconds_left": None, "retry_in": None}
        if task.cancelled():
            await self._remove_orphans(id)
            await self._update(
                id, state="interrupted" if self._is_closing else "cancelled", problem=None, **cleared_fields
            )
        elif isinstance(outcome := _outcome(task), WorkerFailure):
            await self._remove_orphans(id)
            await self._update(id, state="failed", problem=outcome.problem, **cleared_fields)
        else:
            await self._install(id, outcome, cleared_fields)
        del self._running[id]

    async def _fetch_and_convert(self, id: str) -> FetchResult | WorkerFailure:
        async with self._download_slots:
            await self._update(id, state="resolving")
            outcome = await self._fetch(id)
            return await self._convert(id, outcome) if isinstance(outcome, FetchResult) else outcome

    async def _fetch(self, id: str) -> FetchResult | WorkerFailure:
        meter = SpeedMeter()
        async with aclosing(run_worker(build_command("fetch", self.find(id).asked, self._settings))) as events:
            async for event in events:
                if isinstance(event, TransferProgress):
                    await self._update_progress(id, event, meter)
                elif isinstance(event, FetchResult | WorkerFailure):
                    return event
        return WorkerFailure(problem=_WORKER_KILLED)

    async def _convert(self, id: str, result: FetchResult) -> FetchResult | WorkerFailure:
        """Convert an SAE of another library; after a failure the downloaded files stay."""
        spec, source = self.find(id).asked, Path(result.folder)
        if spec.kind == "model" or foreign_layout(source) is None:
            return result
        await self._update(id, state="converting")
        try:
            on_stage = partial(log.debug, "download.converting")
            await convert_sae(source, spec, Home(self._settings.home_folder), on_stage)
        except InvalidSae as error:
            return WorkerFailure(problem=Problem(code=error.code, message=error.message))
        return result

    async def _update_progress(self, id: str, progress: TransferProgress, meter: SpeedMeter) -> None:
        if progress.total:
            meter.add(progress.done, time.monotonic())
        await self._update(
            id,
            state=progress.state,
            commit=progress.commit or self.find(id).commit,
            done=progress.done,
            total=progress.total,
            files_done=progress.files_done,
            files_total=progress.files_total,
            speed=meter.speed,
            seconds_left=meter.seconds_left(progress.total - progress.done),
            attempt=progress.attempt,
            retry_in=progress.retry_in,
            problem=progress.problem,
        )

    async def _install(self, id: str, result: FetchResult, cleared_fields: dict[str, None]) -> None:
        size, count = sum(file.size for file in result.files), len(result.files)
        job = replace(
            self.find(id), state="installed", commit=result.commit, problem=None, updated=time.time(),
            done=size, total=size, files_done=count, files_total=count, **cleared_fields,
        )  # fmt: skip
        async with self._write_lock:
            await asyncio.to_thread(self._store.install, job, result)
        self._jobs[id] = job
        self._on_change(job)

    async def _update(self, id: str, *, state: JobState, **changes: object) -> None:
        self._jobs[id] = job = replace(self.find(id), state=state, updated=time.time(), **changes)
        await self._publish(job)

    async def _publish(self, job: DownloadJob) -> None:
        """Send the job at once, and return when it is on the disk if more than a few bytes changed."""
        self._on_change(job)
        if _needs_saving(self._last_saved.get(job.id), job):
            self._last_saved[job.id] = job
            await asyncio.shield(self._save(job))

    async def _save(self, job: DownloadJob) -> None:
        """In order of the changes."""
        async with self._write_lock:
            await asyncio.to_thread(self._store.save, job)

    async def _remove_orphans(self, id: str) -> None:
        await asyncio.to_thread(remove_orphans, hf_cache_folder(), self.find(id).asked.repository)

    async def _drop_oldest(self) -> None:
        for job in self.jobs()[MAX_JOBS:]:
            if job.state not in ACTIVE_STATES:
                del self._jobs[job.id]
                await asyncio.to_thread(self._store.delete, job.id)


def _outcome(task: "asyncio.Task[FetchResult | WorkerFailure]") -> FetchResult | WorkerFailure:
    error = task.exception()
    if error is None:
        return task.result()
    log.error("download.failed", exc_info=error)
    return WorkerFailure(
        problem=Problem(code=DownloadFailed.code, message="the download failed for a reason that is in the log")
    )


def _needs_saving(saved: DownloadJob | None, job: DownloadJob) -> bool:
    if saved is None or (saved.state, saved.commit, saved.attempt) != (job.state, job.commit, job.attempt):
        return True
    if (saved.problem and saved.problem.code) != (job.problem and job.problem.code):
        return True
    return abs(job.done - saved.done) >= _SAVE_BYTES or job.updated - saved.updated >= _SAVE_SECONDS
