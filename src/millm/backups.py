"""Copies of the database in `backups/` beside it: made once a day and before a change of its schema, seven are kept.

Knows nothing of what is in it. Every function takes its time with the disk.
"""

import os
import re
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

MAX_BACKUPS = 7
_BACKUP_TIME_FORMAT = "%Y%m%dT%H%M%S"
_BACKUP_NAME = re.compile(r"\d{8}T\d{6}\.db")


def list_backups(database: Path) -> list[Path]:
    """The oldest first."""
    folder = _backup_folder(database)
    return sorted(path for path in folder.glob("*.db") if _BACKUP_NAME.fullmatch(path.name)) if folder.is_dir() else []


def is_backup_due(database: Path, now: datetime) -> bool:
    """There is none of this day (UTC)."""
    return not any(path.name.startswith(f"{now:%Y%m%d}T") for path in list_backups(database))


def create_backup(database: Path, now: datetime) -> Path:
    """A copy of this moment, while others read and write. Raises sqlite3.Error or OSError; no half copy is left."""
    made = _backup_folder(database) / f"{now:{_BACKUP_TIME_FORMAT}}.db"
    made.parent.mkdir(exist_ok=True)
    half = made.with_suffix(".half")
    half.unlink(missing_ok=True)
    try:
        with closing(sqlite3.connect(_read_only_uri(database), uri=True)) as connection:
            connection.execute("VACUUM INTO ?", (str(half),))
        _replace_durably(half, made)
    finally:
        half.unlink(missing_ok=True)
    for old in list_backups(database)[:-MAX_BACKUPS]:
        old.unlink()
    return made


def newest_valid_backup(database: Path, newest_schema: int) -> Path | None:
    """The newest copy that is whole, and not of a later miLLM."""
    return next((copy for copy in reversed(list_backups(database)) if _is_valid_backup(copy, newest_schema)), None)


def backup_time(backup: Path) -> datetime:
    return datetime.strptime(backup.stem, _BACKUP_TIME_FORMAT).replace(tzinfo=UTC)


def restore_backup(backup: Path, database: Path, move_aside: Callable[[], str]) -> str:
    """In the place of what is put aside, once there is room for it; → what `put_aside` returns. Raises OSError."""
    half = database.with_name(f"{database.name}.half")
    shutil.copyfile(backup, half)
    aside = move_aside()
    _replace_durably(half, database)
    return aside


def _is_valid_backup(backup: Path, newest_schema: int) -> bool:
    try:
        with closing(sqlite3.connect(f"{_read_only_uri(backup)}&immutable=1", uri=True)) as connection:
            whole = connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
            (schema,) = connection.execute("PRAGMA user_version").fetchone()
    except sqlite3.DatabaseError:
        return False
    return whole and 0 < int(schema) <= newest_schema


def _read_only_uri(path: Path) -> str:
    """Only to read."""
    return f"{path.absolute().as_uri()}?mode=ro"


def _backup_folder(database: Path) -> Path:
    return database.with_name("backups")


def _replace_durably(partial: Path, target: Path) -> None:
    """On the disk, all of it, before it has its name."""
    _fsync(partial)
    partial.replace(target)
    _fsync(target.parent)


def _fsync(path: Path) -> None:
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
