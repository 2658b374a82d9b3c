"""The one SQLite file: what has been acknowledged survives a power cut (WAL, `synchronous=FULL`), one writer.

It holds what should be (the desired state, jobs, what was installed), never what is: that only the process knows.
"""

import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import closing
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
"""In order; the file's `user_version` says how many it has had. A change of the schema appends one."""

_BUSY_SECONDS = 5.0
_CORRUPT = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


class Database:
    """Calls from any thread; each takes about 4 ms to write and 0.1 ms to read."""

    def __init__(self, path: Path) -> None:
        """Raises CannotStart for a file of a newer miLLM; one that is no database is moved aside, and told."""
        self._lock = threading.Lock()
        try:
            self._connection = _open(path)
        except sqlite3.DatabaseError as error:
            if error.sqlite_errorcode not in _CORRUPT:
                raise CannotStart(f"{path} cannot be opened ({error}); make room, or mend its permissions") from error
            log.error("storage.corrupt", file=path.name, moved_to=_move_aside(path), reason=str(error))
            self._connection = _open(path)

    def write(self, change: Callable[[sqlite3.Connection], Result]) -> Result:
        """All of `change` or nothing; when this returns, it is on the disk. Raises NotStored."""
        try:
            with self._lock, self._connection:
                self._connection.execute("BEGIN IMMEDIATE")
                return change(self._connection)
        except sqlite3.OperationalError as error:
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


def _open(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        _migrate(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def _move_aside(path: Path) -> str:
    """With what belongs to it; → its new name."""
    aside = f"{path.name}.corrupt-{int(time.time())}"
    for ending in ("", "-wal", "-shm"):
        part = path.with_name(path.name + ending)
        if part.exists():
            part.rename(path.with_name(aside + ending))
    return aside


def _migrate(connection: sqlite3.Connection) -> None:
    (had,) = connection.execute("PRAGMA user_version").fetchone()
    if had > len(MIGRATIONS):
        raise CannotStart(
            f"the database in MILLM_HOME has schema {had}, and this miLLM knows {len(MIGRATIONS)}; start the newer"
            " miLLM that wrote it, or set MILLM_HOME to another folder"
        )
    for number, migration in enumerate(MIGRATIONS[had:], start=had + 1):
        connection.executescript(f"BEGIN IMMEDIATE; {migration} PRAGMA user_version = {number}; COMMIT;")
