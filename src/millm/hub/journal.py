"""Downloads in the database: a job is a row, and what was verified gets one in `installed`, in the same transaction."""

import sqlite3
import time

import msgspec
from msgspec.structs import replace

from millm.hub.installed import Installed
from millm.hub.jobs import ACTIVE, Job
from millm.hub.orders import Fetched
from millm.storage import Database

_SAVE_JOB = "INSERT INTO jobs (id, body) VALUES (?, ?) ON CONFLICT (id) DO UPDATE SET body = excluded.body"
_INSTALL = (
    "INSERT INTO installed (kind, name, body) VALUES (?, ?, ?)"
    " ON CONFLICT (kind, name) DO UPDATE SET body = excluded.body"
)


class Journal:
    def __init__(self, database: Database) -> None:
        self._database = database

    def load(self) -> tuple[list[Job], list[Job]]:
        """(all jobs, those of them that ran when their server ended: now `interrupted`)."""
        jobs = [msgspec.json.decode(body, type=Job) for (body,) in self._database.read("SELECT body FROM jobs")]
        cut_off = [interrupted(job) for job in jobs if job.state in ACTIVE]
        if cut_off:
            self._database.write(lambda connection: _save_all(connection, cut_off))
        others = [job for job in jobs if job.state not in ACTIVE]
        return [*others, *cut_off], cut_off

    def save(self, job: Job) -> None:
        self._database.write(lambda connection: _save(connection, job))

    def install(self, job: Job, fetched: Fetched) -> None:
        """The job's end and what it brought, both or neither."""
        asked = job.asked
        body = Installed(
            repository=asked.repository,
            commit=fetched.commit,
            path=asked.path,
            files=fetched.files,
        )

        def change(connection: sqlite3.Connection) -> None:
            _save(connection, job)
            connection.execute(_INSTALL, (asked.kind, asked.name, _json(body)))

        self._database.write(change)

    def drop(self, id: str) -> None:
        self._database.write(lambda connection: connection.execute("DELETE FROM jobs WHERE id = ?", (id,)))


def interrupted(job: Job) -> Job:
    """It goes on when told to."""
    return replace(
        job, state="interrupted", speed=None, seconds_left=None, retry_in=None, problem=None, updated=time.time()
    )


def _save_all(connection: sqlite3.Connection, jobs: list[Job]) -> None:
    for job in jobs:
        _save(connection, job)


def _save(connection: sqlite3.Connection, job: Job) -> None:
    connection.execute(_SAVE_JOB, (job.id, _json(job)))


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()
