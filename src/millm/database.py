"""The SQLite database: durable across a power cut (WAL, `synchronous=FULL`), one writer, with backups.

It stores the desired state, jobs and installed artifacts, never the current state of the process. Seven backups lie in
`backups/` beside it, from every day and before each schema migration. All functions block on the disk.
"""

import os
import re
import shutil
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import structlog

from millm.errors import CannotStart, NotStored

log = structlog.get_logger()
Result = TypeVar("Result")
MIGRATIONS: tuple[str, ...] = (
    """
    CREATE TABLE jobs (id TEXT PRIMARY KEY, body TEXT NOT NULL) STRICT;
    CREATE TABLE installed (
        kind TEXT NOT NULL, name TEXT NOT NULL, body TEXT NOT NULL, PRIMARY KEY (kind, name)
    ) STRICT;
    CREATE TABLE desired (one INTEGER PRIMARY KEY CHECK (one = 1), body TEXT NOT NULL) STRICT;
    """,
    """
    CREATE TABLE profiles (
        id INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, name TEXT NOT NULL, body TEXT NOT NULL,
        created REAL NOT NULL, updated REAL NOT NULL
    ) STRICT;
    CREATE TABLE profile_files (sha256 TEXT PRIMARY KEY) STRICT;
    CREATE TABLE foreign_saes (id TEXT PRIMARY KEY, sae TEXT NOT NULL) STRICT;
    CREATE TABLE labels (
        sae TEXT NOT NULL, feature INTEGER NOT NULL, body TEXT NOT NULL, PRIMARY KEY (sae, feature)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE monitor (one INTEGER PRIMARY KEY CHECK (one = 1), body TEXT NOT NULL) STRICT;
    """,
)
"""Applied in order; the file's `user_version` is the number applied. A schema change appends one."""
_BUSY_SECONDS = 5.0
_CORRUPT_CODES = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
MAX_BACKUPS = 7
_BACKUP_TIME_FORMAT = "%Y%m%dT%H%M%S"
_BACKUP_NAME = re.compile(r"\d{8}T\d{6}\.db")


def list_backups(database: Path) -> list[Path]:
    """Oldest first."""
    folder = _backup_folder(database)
    return sorted(path for path in folder.glob("*.db") if _BACKUP_NAME.fullmatch(path.name)) if folder.is_dir() else []


def is_backup_due(database: Path, now: datetime) -> bool:
    """True without a backup of the current day (UTC)."""
    return not any(path.name.startswith(f"{now:%Y%m%d}T") for path in list_backups(database))


def create_backup(database: Path, now: datetime) -> Path:
    """Copy the database while others read and write. Raises sqlite3.Error or OSError, without a partial copy."""
    backup = _backup_folder(database) / f"{now:{_BACKUP_TIME_FORMAT}}.db"
    backup.parent.mkdir(exist_ok=True)
    partial = backup.with_suffix(".half")
    partial.unlink(missing_ok=True)
    try:
        with closing(sqlite3.connect(_read_only_uri(database), uri=True)) as connection:
            connection.execute("VACUUM INTO ?", (str(partial),))
        _replace_durably(partial, backup)
    finally:
        partial.unlink(missing_ok=True)
    for old in list_backups(database)[:-MAX_BACKUPS]:
        old.unlink()
    return backup


def newest_valid_backup(database: Path, newest_schema: int) -> Path | None:
    """The newest intact backup with a schema of at most `newest_schema`."""
    return next((copy for copy in reversed(list_backups(database)) if _is_valid_backup(copy, newest_schema)), None)


def backup_time(backup: Path) -> datetime:
    return datetime.strptime(backup.stem, _BACKUP_TIME_FORMAT).replace(tzinfo=UTC)


def restore_backup(backup: Path, database: Path, move_aside: Callable[[], str]) -> str:
    """Copy the backup, then call `move_aside` and replace the database; returns its result. Raises OSError."""
    partial = database.with_name(f"{database.name}.half")
    shutil.copyfile(backup, partial)
    aside = move_aside()
    _replace_durably(partial, database)
    return aside


def _is_valid_backup(backup: Path, newest_schema: int) -> bool:
    try:
        with closing(sqlite3.connect(f"{_read_only_uri(backup)}&immutable=1", uri=True)) as connection:
            is_intact = connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
            (schema,) = connection.execute("PRAGMA user_version").fetchone()
    except sqlite3.DatabaseError:
        return False
    return is_intact and 0 < int(schema) <= newest_schema


def _read_only_uri(path: Path) -> str:
    return f"{path.absolute().as_uri()}?mode=ro"


def _backup_folder(database: Path) -> Path:
    return database.with_name("backups")


def _replace_durably(partial: Path, target: Path) -> None:
    """Rename after an fsync, so that `target` is complete even after a power cut."""
    _fsync(partial)
    partial.replace(target)
    _fsync(target.parent)


def _fsync(path: Path) -> None:
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)


class Database:
    """Thread-safe; about 4 ms per write, 0.1 ms per read."""

    def __init__(self, path: Path) -> None:
        """Move a damaged file aside and restore the newest valid backup. Raises CannotStart for a newer schema."""
        self._lock = threading.Lock()
        self._path = path
        self.notice: str | None = None
        """The recovery of a damaged file."""
        try:
            self._connection = _open_database(path)
        except _DatabaseDamaged as damaged:
            self.notice = _recover(path, damaged)
            self._connection = _open_database(path)

    def back_up(self, now: datetime) -> None:
        """Create today's backup (UTC) unless it exists; a failure is logged."""
        try:
            if is_backup_due(self._path, now):
                create_backup(self._path, now)
        except (sqlite3.Error, OSError) as error:
            log.error("storage.not_backed_up", reason=str(error))

    def write(self, change: Callable[[sqlite3.Connection], Result]) -> Result:
        """Run `change` in a durable transaction. Raises NotStored."""
        try:
            with self._lock, self._connection:
                self._connection.execute("BEGIN IMMEDIATE")
                return change(self._connection)
        except sqlite3.DatabaseError as error:
            if isinstance(error, sqlite3.IntegrityError):
                raise
            log.error("storage.not_written", reason=str(error))
            raise NotStored(
                f"the server cannot write what it has to remember ({error}), so nothing was changed;"
                " make room on the disk of MILLM_HOME, or mend its permissions"
            ) from error

    def read(self, query: str, values: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        with self._lock, closing(self._connection.execute(query, values)) as cursor:
            return cursor.fetchall()

    def close(self) -> None:
        with self._lock:
            self._connection.close()


class _DatabaseDamaged(Exception):
    """The file is not an intact database."""


def _open_database(path: Path) -> sqlite3.Connection:
    """Raises _DatabaseDamaged or CannotStart."""
    try:
        if path.exists() and path.stat().st_size == 0 and list_backups(path):
            raise _DatabaseDamaged("it is empty")
        return _connect(path)
    except sqlite3.DatabaseError as error:
        if error.sqlite_errorcode in _CORRUPT_CODES:
            raise _DatabaseDamaged(str(error)) from error
        raise CannotStart(f"{path} cannot be opened ({error}); make room, or mend its permissions") from error
    except OSError as error:
        raise CannotStart(f"{path} cannot be backed up ({error.strerror}); make room, or mend permissions") from error


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        ((result,),) = connection.execute("PRAGMA quick_check(1)").fetchall()
        if result != "ok":
            raise _DatabaseDamaged(result)
        _migrate(connection, path)
    except BaseException:
        connection.close()
        raise
    return connection


def _recover(path: Path, damaged: _DatabaseDamaged) -> str:
    """Returns a notice about the recovery. Raises CannotStart, without changes."""
    copy = newest_valid_backup(path, newest_schema=len(MIGRATIONS))
    try:
        aside = restore_backup(copy, path, lambda: _move_aside(path)) if copy else _move_aside(path)
    except OSError as error:
        raise CannotStart(f"{path} is damaged, and its backup cannot be put back ({error.strerror})") from error
    log.error("storage.damaged", file=path.name, moved_to=aside, reason=str(damaged), backup=copy and copy.name)
    if copy is None:
        return f"the database was damaged, and there was no backup of it: it began anew; the old one is kept as {aside}"
    return (
        f"the database was damaged, and the backup of {backup_time(copy):%Y-%m-%d %H:%M} UTC took its place:"
        f" what was changed since is lost; the damaged one is kept as {aside}"
    )


def _move_aside(path: Path) -> str:
    """Rename the database with its WAL files; returns the new name."""
    aside = f"{path.name}.corrupt-{int(time.time())}"
    for ending in ("", "-wal", "-shm"):
        part = path.with_name(path.name + ending)
        if part.exists():
            part.rename(path.with_name(aside + ending))
    return aside


def _migrate(connection: sqlite3.Connection, path: Path) -> None:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version > len(MIGRATIONS):
        raise CannotStart(
            f"the database in MILLM_HOME has schema {version}, and this miLLM knows {len(MIGRATIONS)}; start the newer"
            " miLLM that wrote it, or set MILLM_HOME to another folder"
        )
    if 0 < version < len(MIGRATIONS):
        create_backup(path, datetime.now(UTC))
    for number, migration in enumerate(MIGRATIONS[version:], start=version + 1):
        connection.executescript(f"BEGIN IMMEDIATE; {migration} PRAGMA user_version = {number}; COMMIT;")
