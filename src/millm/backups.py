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

KEPT = 7
_TIME = "%Y%m%dT%H%M%S"
_NAME = re.compile(r"\d{8}T\d{6}\.db")


def copies(database: Path) -> list[Path]:
    """The oldest first."""
    folder = _folder(database)
    return sorted(path for path in folder.glob("*.db") if _NAME.fullmatch(path.name)) if folder.is_dir() else []


def is_due(database: Path, now: datetime) -> bool:
    """There is none of this day (UTC)."""
    return not any(path.name.startswith(f"{now:%Y%m%d}T") for path in copies(database))


def back_up(database: Path, now: datetime) -> Path:
    """A copy of this moment, while others read and write. Raises sqlite3.Error or OSError; no half copy is left."""
    made = _folder(database) / f"{now:{_TIME}}.db"
    made.parent.mkdir(exist_ok=True)
    half = made.with_suffix(".half")
    half.unlink(missing_ok=True)
    try:
        with closing(sqlite3.connect(_address(database), uri=True)) as connection:
            connection.execute("VACUUM INTO ?", (str(half),))
        _put(half, made)
    finally:
        half.unlink(missing_ok=True)
    for old in copies(database)[:-KEPT]:
        old.unlink()
    return made


def newest_good(database: Path, newest_schema: int) -> Path | None:
    """The newest copy that is whole, and not of a later miLLM."""
    return next((copy for copy in reversed(copies(database)) if _is_good(copy, newest_schema)), None)


def made_at(copy: Path) -> datetime:
    return datetime.strptime(copy.stem, _TIME).replace(tzinfo=UTC)


def put_back(copy: Path, database: Path, put_aside: Callable[[], str]) -> str:
    """In the place of what is put aside, once there is room for it; → what `put_aside` returns. Raises OSError."""
    half = database.with_name(f"{database.name}.half")
    shutil.copyfile(copy, half)
    aside = put_aside()
    _put(half, database)
    return aside


def _is_good(copy: Path, newest_schema: int) -> bool:
    try:
        with closing(sqlite3.connect(f"{_address(copy)}&immutable=1", uri=True)) as connection:
            whole = connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
            (schema,) = connection.execute("PRAGMA user_version").fetchone()
    except sqlite3.DatabaseError:
        return False
    return whole and 0 < int(schema) <= newest_schema


def _address(path: Path) -> str:
    """Only to read."""
    return f"{path.absolute().as_uri()}?mode=ro"


def _folder(database: Path) -> Path:
    return database.with_name("backups")


def _put(half: Path, place: Path) -> None:
    """On the disk, all of it, before it has its name."""
    _sync(half)
    half.replace(place)
    _sync(place.parent)


def _sync(path: Path) -> None:
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
