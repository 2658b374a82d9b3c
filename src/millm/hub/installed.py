"""What a finished and verified download left behind: the row that says which files, how large, at which commit."""

import sqlite3

import msgspec
import structlog

from millm.database import Database
from millm.hub.jobs import ArtifactKind, DownloadJob

log = structlog.get_logger()


class InstalledFile(msgspec.Struct, frozen=True, kw_only=True):
    path: str
    """In the repository."""
    size: int
    hash: str
    """sha256, or of small files git's sha1 of a blob: also the blob's name in the cache."""


class InstallRecord(msgspec.Struct, frozen=True, kw_only=True):
    """Of one model, or of one SAE's folder."""

    repository: str
    commit: str
    path: str = ""
    files: tuple[InstalledFile, ...]

    def sizes(self) -> dict[str, int]:
        """By the files' paths in the SAE's folder or the model's."""
        prefix = f"{self.path}/" if self.path else ""
        return {file.path.removeprefix(prefix): file.size for file in self.files}


InstallKey = tuple[ArtifactKind, str, str, str]
"""Kind, repository, commit, path."""


def load_install_records(database: Database) -> dict[InstallKey, InstallRecord]:
    rows = database.read("SELECT kind, name, body FROM installed")
    found: dict[InstallKey, InstallRecord] = {}
    for kind, name, body in rows:
        try:
            row = msgspec.json.decode(body, type=InstallRecord)
        except msgspec.DecodeError as error:
            log.error("library.row_unreadable", name=name, reason=str(error))
            continue
        found[kind, row.repository, row.commit, row.path] = row
    return found


def latest_jobs(database: Database) -> dict[InstallKey, DownloadJob]:
    """The newest for each commit of each model and SAE; of what has not been resolved yet there are no files."""
    found: dict[InstallKey, DownloadJob] = {}
    for (body,) in database.read("SELECT body FROM jobs"):
        try:
            job = msgspec.json.decode(body, type=DownloadJob)
        except msgspec.DecodeError as error:
            log.error("library.job_unreadable", reason=str(error))
            continue
        key = (job.asked.kind, job.asked.repository, job.commit or "", job.asked.path)
        if key not in found or found[key].created < job.created:
            found[key] = job
    return found


def delete_install_record(database: Database, key: InstallKey) -> None:
    """The row goes; what it told of may then go too."""

    def change(connection: sqlite3.Connection) -> None:
        for kind, name, body in connection.execute("SELECT kind, name, body FROM installed").fetchall():
            row = msgspec.json.decode(body, type=InstallRecord)
            if (kind, row.repository, row.commit, row.path) == key:
                connection.execute("DELETE FROM installed WHERE kind = ? AND name = ?", (kind, name))

    database.write(change)
