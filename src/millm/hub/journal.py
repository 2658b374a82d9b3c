"""Downloads in the database: a job is a row, and what was verified gets one in `installed`, in the same transaction."""

import sqlite3
import time

import msgspec
from msgspec.structs import replace

from millm.database import Database
from millm.hub.installed import InstallRecord
from millm.hub.jobs import ACTIVE_STATES, DownloadJob
from millm.hub.orders import FetchResult

_SAVE_JOB = "INSERT INTO jobs (id, body) VALUES (?, ?) ON CONFLICT (id) DO UPDATE SET body = excluded.body"
_INSTALL = (
    "INSERT INTO installed (kind, name, body) VALUES (?, ?, ?)"
    " ON CONFLICT (kind, name) DO UPDATE SET body = excluded.body"
)


class JobStore:
    def __init__(self, database: Database) -> None:
        self._database = database

    def load(self) -> tuple[list[DownloadJob], list[DownloadJob]]:
        """(all jobs, those of them that ran when their server ended: now `interrupted`)."""
        jobs = [msgspec.json.decode(body, type=DownloadJob) for (body,) in self._database.read("SELECT body FROM jobs")]
        cut_off = [as_interrupted(job) for job in jobs if job.state in ACTIVE_STATES]
        if cut_off:
            self._database.write(lambda connection: _save_all(connection, cut_off))
        others = [job for job in jobs if job.state not in ACTIVE_STATES]
        return [*others, *cut_off], cut_off

    def save(self, job: DownloadJob) -> None:
        self._database.write(lambda connection: _save(connection, job))

    def install(self, job: DownloadJob, result: FetchResult) -> None:
        """The job's end and what it brought, both or neither."""
        asked = job.asked
        body = InstallRecord(
            repository=asked.repository,
            commit=result.commit,
            path=asked.path,
            files=result.files,
        )

        def change(connection: sqlite3.Connection) -> None:
            _save(connection, job)
            connection.execute(_INSTALL, (asked.kind, asked.name, _json(body)))

        self._database.write(change)

    def delete(self, id: str) -> None:
        self._database.write(lambda connection: connection.execute("DELETE FROM jobs WHERE id = ?", (id,)))


def as_interrupted(job: DownloadJob) -> DownloadJob:
    """It goes on when told to."""
    return replace(
        job, state="interrupted", speed=None, seconds_left=None, retry_in=None, problem=None, updated=time.time()
    )


def _save_all(connection: sqlite3.Connection, jobs: list[DownloadJob]) -> None:
    for job in jobs:
        _save(connection, job)


def _save(connection: sqlite3.Connection, job: DownloadJob) -> None:
    connection.execute(_SAVE_JOB, (job.id, _json(job)))


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()
