"""Downloads: queued, two at a time in a process each, told while they run, and never forgotten by a restart.

What is verified becomes a row of `installed` together with the job's end; nothing else makes a model or an SAE exist.
Lives on one event loop.
"""

import asyncio
import time
import uuid
from collections.abc import Callable
from contextlib import aclosing
from functools import partial
from pathlib import Path

import structlog
from msgspec.structs import replace

from millm.errors import Conflict, DownloadFailed, InvalidSae, JobNotFound, QueueFull, from_code
from millm.hub.asking import asked_for, check
from millm.hub.blobs import remove_orphans
from millm.hub.cache_folder import cache_folder
from millm.hub.convert import convert, needs_conversion
from millm.hub.home import Home
from millm.hub.jobs import ACTIVE, Asked, Job, JobState, Preview, Problem, RemoteModel
from millm.hub.journal import Journal
from millm.hub.orders import Fetched, Moved, Offered, Previewed, Refused
from millm.hub.pace import Pace
from millm.hub.worker import obey, order_of, search_of
from millm.settings import Settings
from millm.storage import Database

__all__ = ["Downloads", "asked_for"]

log = structlog.get_logger()

AT_ONCE = 2
WAITING = 32
KEPT = 100
"""Jobs that are remembered; the oldest that ended goes."""

_SAVE_BYTES = 64 << 20
_SAVE_SECONDS = 10.0
_PREVIEW_TRIES = 2
"""Somebody waits for it."""
_ENDED = Problem(
    code=DownloadFailed.code,
    message="the download's process was ended from outside; resume it, what is finished stays",
)


class Downloads:
    def __init__(self, database: Database, settings: Settings, on_change: Callable[[Job], None]) -> None:
        """What ran when the last server ended is `interrupted` from here on, and what it left half is removed."""
        self._settings = settings
        self._on_change = on_change
        self._journal = Journal(database)
        jobs, cut_off = self._journal.load()
        self._jobs = {job.id: job for job in sorted(jobs, key=lambda job: job.created)}
        self._saved: dict[str, Job] = {}
        self._running: dict[str, tuple[asyncio.Task[Fetched | Refused], asyncio.Task[None]]] = {}
        self._turns = asyncio.Semaphore(AT_ONCE)
        self._previews = asyncio.Semaphore(AT_ONCE)
        self._writing = asyncio.Lock()
        self._is_closing = False
        for repository in {job.asked.repository for job in cut_off}:
            remove_orphans(cache_folder(), repository)

    def jobs(self) -> list[Job]:
        """Newest first."""
        return list(reversed(self._jobs.values()))

    def find(self, id: str) -> Job:
        """Raises JobNotFound."""
        if id not in self._jobs:
            raise JobNotFound(f"there is no job {id!r}; GET /api/jobs lists them", param="id")
        return self._jobs[id]

    async def preview(self, asked: Asked) -> Preview:
        """What it would bring. Raises what the hub refuses it with."""
        check(asked)
        order = replace(order_of("preview", asked, self._settings), tries=_PREVIEW_TRIES)
        async with self._previews, aclosing(obey(order)) as told:
            async for news in told:
                if isinstance(news, Previewed):
                    return news.preview
                if isinstance(news, Refused):
                    raise from_code(news.problem.code, news.problem.message)
        raise DownloadFailed(f"{asked.name}: {_ENDED.message}")

    async def search(self, words: str, limit: int) -> tuple[RemoteModel, ...]:
        """The models of Hugging Face's whose names have these words. Raises what the hub refuses it with."""
        async with self._previews, aclosing(obey(search_of(words, limit, self._settings))) as told:
            async for news in told:
                if isinstance(news, Offered):
                    return news.models
                if isinstance(news, Refused):
                    raise from_code(news.problem.code, news.problem.message)
        raise DownloadFailed("the search was ended from outside; try again")

    async def start(self, asked: Asked) -> Job:
        """The same asked, unless it is installed, is one job and goes on. Raises InvalidRequest or QueueFull."""
        check(asked)
        for job in self._jobs.values():
            if job.asked == asked and job.state != "installed":
                return await self._begin(job)
        now = time.time()
        return await self._begin(
            Job(id=uuid.uuid4().hex[:12], asked=asked, name=asked.name, state="queued", created=now, updated=now)
        )

    async def resume(self, id: str) -> Job:
        """Raises JobNotFound, Conflict for what is installed, or QueueFull."""
        job = self.find(id)
        if job.state == "installed":
            raise Conflict(f"{job.name} is installed already; there is nothing to go on with")
        return await self._begin(job)

    async def cancel(self, id: str) -> Job:
        """Ended when this returns; what ended before stays as it is. Raises JobNotFound."""
        self.find(id)
        if id in self._running:
            self._running[id][0].cancel()
        return await self.wait(id)

    async def wait(self, id: str) -> Job:
        """Until it has ended, well or not. Raises JobNotFound."""
        self.find(id)
        if id in self._running:
            await asyncio.wait({self._running[id][1]})
        return self.find(id)

    async def close(self) -> None:
        """Nothing runs any more; what ran is `interrupted`."""
        self._is_closing = True
        for following, _ in self._running.values():
            following.cancel()
        await asyncio.gather(*(run for _, run in self._running.values()))

    async def _begin(self, job: Job) -> Job:
        if job.id in self._running:
            return job
        if sum(other.state == "queued" for other in self._jobs.values()) >= WAITING:
            raise QueueFull(f"{WAITING} downloads wait already; try again when some have ended")
        following = asyncio.create_task(self._follow(job.id))
        self._running[job.id] = following, asyncio.create_task(self._run(job.id, following))
        self._jobs[job.id] = queued = replace(job, state="queued", attempt=1, problem=None, updated=time.time())
        await self._tell(queued)
        await self._forget_oldest()
        return queued

    async def _run(self, id: str, following: "asyncio.Task[Fetched | Refused]") -> None:
        """From queued to ended; never cancelled itself."""
        await asyncio.wait({following})
        still: dict[str, None] = {"speed": None, "seconds_left": None, "retry_in": None}
        if following.cancelled():
            await self._clean(id)
            await self._change(id, state="interrupted" if self._is_closing else "cancelled", problem=None, **still)
        elif isinstance(outcome := _outcome(following), Refused):
            await self._clean(id)
            await self._change(id, state="failed", problem=outcome.problem, **still)
        else:
            await self._install(id, outcome, still)
        del self._running[id]

    async def _follow(self, id: str) -> Fetched | Refused:
        """In its turn."""
        async with self._turns:
            await self._change(id, state="resolving")
            outcome = await self._fetch(id)
            return await self._converted(id, outcome) if isinstance(outcome, Fetched) else outcome

    async def _fetch(self, id: str) -> Fetched | Refused:
        pace = Pace()
        async with aclosing(obey(order_of("fetch", self.find(id).asked, self._settings))) as told:
            async for news in told:
                if isinstance(news, Moved):
                    await self._moved(id, news, pace)
                elif isinstance(news, Fetched | Refused):
                    return news
        return Refused(problem=_ENDED)

    async def _converted(self, id: str, fetched: Fetched) -> Fetched | Refused:
        """An SAE of another library becomes one that is read; where it cannot, what was fetched stays."""
        asked, source = self.find(id).asked, Path(fetched.folder)
        if asked.kind == "model" or needs_conversion(source) is None:
            return fetched
        await self._change(id, state="converting")
        try:
            await convert(source, asked, Home(self._settings.home_folder), partial(log.debug, "download.converting"))
        except InvalidSae as error:
            return Refused(problem=Problem(code=error.code, message=error.message))
        return fetched

    async def _moved(self, id: str, news: Moved, pace: Pace) -> None:
        if news.total:
            pace.add(news.done, time.monotonic())
        await self._change(
            id,
            state=news.state,
            commit=news.commit or self.find(id).commit,
            done=news.done,
            total=news.total,
            files_done=news.files_done,
            files_total=news.files_total,
            speed=pace.speed,
            seconds_left=pace.seconds_left(news.total - news.done),
            attempt=news.attempt,
            retry_in=news.retry_in,
            problem=news.problem,
        )

    async def _install(self, id: str, fetched: Fetched, still: dict[str, None]) -> None:
        size, count = sum(file.size for file in fetched.files), len(fetched.files)
        job = replace(
            self.find(id), state="installed", commit=fetched.commit, problem=None, updated=time.time(),
            done=size, total=size, files_done=count, files_total=count, **still,
        )  # fmt: skip
        async with self._writing:
            await asyncio.to_thread(self._journal.install, job, fetched)
        self._jobs[id] = job
        self._on_change(job)

    async def _change(self, id: str, *, state: JobState, **changes: object) -> None:
        self._jobs[id] = job = replace(self.find(id), state=state, updated=time.time(), **changes)
        await self._tell(job)

    async def _tell(self, job: Job) -> None:
        """At once; and it is on the disk when this returns, where it is more than a few bytes."""
        self._on_change(job)
        if _is_news(self._saved.get(job.id), job):
            self._saved[job.id] = job
            await asyncio.shield(self._write(job))

    async def _write(self, job: Job) -> None:
        """One after the other, in the order they happened."""
        async with self._writing:
            await asyncio.to_thread(self._journal.save, job)

    async def _clean(self, id: str) -> None:
        await asyncio.to_thread(remove_orphans, cache_folder(), self.find(id).asked.repository)

    async def _forget_oldest(self) -> None:
        for job in self.jobs()[KEPT:]:
            if job.state not in ACTIVE:
                del self._jobs[job.id]
                await asyncio.to_thread(self._journal.drop, job.id)


def _outcome(following: "asyncio.Task[Fetched | Refused]") -> Fetched | Refused:
    error = following.exception()
    if error is None:
        return following.result()
    log.error("download.failed", exc_info=error)
    return Refused(
        problem=Problem(code=DownloadFailed.code, message="the download failed for a reason that is in the log")
    )


def _is_news(saved: Job | None, job: Job) -> bool:
    if saved is None or (saved.state, saved.commit, saved.attempt) != (job.state, job.commit, job.attempt):
        return True
    if (saved.problem and saved.problem.code) != (job.problem and job.problem.code):
        return True
    return abs(job.done - saved.done) >= _SAVE_BYTES or job.updated - saved.updated >= _SAVE_SECONDS
