"""What downloads left in the database, by commit: which files were installed, how large; which job was the last."""

import sqlite3

import msgspec
import structlog

from millm.hub.jobs import Job, Kind
from millm.hub.journal import Installed
from millm.storage import Database

log = structlog.get_logger()


Key = tuple[Kind, str, str, str]
"""Kind, repository, commit, path."""


def sizes(row: Installed) -> dict[str, int]:
    """By the files' paths in the model's or the SAE's folder."""
    prefix = f"{row.path}/" if row.path else ""
    return {file.path.removeprefix(prefix): file.size for file in row.files}


def installed(database: Database) -> dict[Key, Installed]:
    rows = database.read("SELECT kind, name, body FROM installed")
    found: dict[Key, Installed] = {}
    for kind, name, body in rows:
        try:
            row = msgspec.json.decode(body, type=Installed)
        except msgspec.DecodeError as error:
            log.error("library.row_unreadable", name=name, reason=str(error))
            continue
        found[kind, row.repository, row.commit, row.path] = row
    return found


def latest_jobs(database: Database) -> dict[Key, Job]:
    """The newest for each commit of each model and SAE; of what has not been resolved yet there are no files."""
    found: dict[Key, Job] = {}
    for (body,) in database.read("SELECT body FROM jobs"):
        try:
            job = msgspec.json.decode(body, type=Job)
        except msgspec.DecodeError as error:
            log.error("library.job_unreadable", reason=str(error))
            continue
        key = (job.asked.kind, job.asked.repository, job.commit or "", job.asked.path)
        if key not in found or found[key].created < job.created:
            found[key] = job
    return found


def forget(database: Database, key: Key) -> None:
    """The row goes; what it told of may then go too."""

    def change(connection: sqlite3.Connection) -> None:
        for kind, name, body in connection.execute("SELECT kind, name, body FROM installed").fetchall():
            row = msgspec.json.decode(body, type=Installed)
            if (kind, row.repository, row.commit, row.path) == key:
                connection.execute("DELETE FROM installed WHERE kind = ? AND name = ?", (kind, name))

    database.write(change)
