"""The database: backups, recovery of a damaged file, migrations, and a full disk."""

import json
import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from millm import database as backups
from millm import database as storage
from millm.database import MIGRATIONS, Database
from millm.errors import CannotStart, NotStored
from millm.profiles.schema import Profile
from millm.profiles.store import ProfileStore

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def add(path: Path, *names: str) -> None:
    with closing(Database(path)) as database:
        for name in names:
            ProfileStore(database).add(Profile(name=name))


def names(database: Database) -> list[str]:
    return [profile.name for profile in ProfileStore(database).all()]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A database with `kept`, which its backup has too, and `lost`, which came after."""
    path = tmp_path / "a folder #1%20" / "millm.db"
    path.parent.mkdir()
    add(path, "kept")
    with closing(Database(path)) as database:
        database.back_up(NOON)
    add(path, *(f"lost {number}" for number in range(60)))
    return path


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 8192 * 4096])


def overwrite(path: Path) -> None:
    path.write_bytes(b"SQLite it is not " * 1000)


def scramble(path: Path) -> None:
    """The head is as it was."""
    content = bytearray(path.read_bytes())
    content[4096 * 2 :] = b"\x5a" * (len(content) - 4096 * 2)
    path.write_bytes(content)


def empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize("damage", [truncate, overwrite, scramble, empty])
def test_newest_valid_backup_replaces_a_damaged_file(path: Path, damage: Callable[[Path], None]) -> None:
    damage(path)
    harmed = path.read_bytes()
    with closing(Database(path)) as database:
        assert names(database) == ["kept"]
        assert "the backup of 2026-03-01 12:00 UTC" in (database.notice or "")
        (aside,) = path.parent.glob("millm.db.corrupt-*")
        assert aside.name in (database.notice or "")
        assert aside.read_bytes() == harmed
    with closing(Database(path)) as database:
        assert (names(database), database.notice) == (["kept"], None)


def test_damaged_backups_are_skipped(path: Path) -> None:
    with closing(Database(path)) as database:
        database.back_up(NOON + timedelta(days=1))
        database.back_up(NOON + timedelta(days=2))
    first, second, third = backups.list_backups(path)
    overwrite(third)
    truncate(second)
    overwrite(path)
    assert backups.newest_valid_backup(path, len(MIGRATIONS)) == first
    with closing(Database(path)) as database:
        assert names(database) == ["kept"]


def test_without_backup_a_new_database_and_a_notice(tmp_path: Path) -> None:
    path = tmp_path / "millm.db"
    overwrite(path)
    with closing(Database(path)) as database:
        assert "there was no backup of it" in (database.notice or "")
        assert names(database) == []


def test_empty_file_without_backups_is_a_new_database(tmp_path: Path) -> None:
    (tmp_path / "millm.db").touch()
    with closing(Database(tmp_path / "millm.db")) as database:
        assert database.notice is None


def test_one_backup_per_day_and_seven_in_total(tmp_path: Path) -> None:
    path = tmp_path / "millm.db"
    for day in range(9):
        add(path, f"day {day}")
        with closing(Database(path)) as database:
            for hour in range(3):
                database.back_up(NOON + timedelta(days=day, hours=hour))
    copies = backups.list_backups(path)
    assert [backups.backup_time(copy) for copy in copies] == [NOON + timedelta(days=day) for day in range(2, 9)]
    assert [path.name for path in (tmp_path / "backups").iterdir() if path not in copies] == []
    with closing(Database(copies[0])) as oldest:
        assert names(oldest) == ["day 0", "day 1", "day 2"]


def test_backup_is_consistent_during_writes(tmp_path: Path) -> None:
    """And they need not wait for it."""
    path = tmp_path / "millm.db"
    with closing(Database(path)) as database:
        store, enough = ProfileStore(database), threading.Event()

        def write() -> None:
            while not enough.is_set():
                store.add(Profile(name=store.free_name("again")))

        writer = threading.Thread(target=write)
        writer.start()
        for day in range(5):
            database.back_up(NOON + timedelta(days=day))
        enough.set()
        writer.join()
    for copy in backups.list_backups(path):
        assert backups.newest_valid_backup(path, len(MIGRATIONS)) is not None
        with closing(sqlite3.connect(copy)) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def test_backup_before_migration(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "MIGRATIONS", (*MIGRATIONS, "CREATE TABLE more (one INTEGER) STRICT;"))
    had = backups.list_backups(path)
    with closing(Database(path)) as database:
        assert database.read("SELECT * FROM more") == []
    (made,) = set(backups.list_backups(path)) - set(had)
    with closing(sqlite3.connect(made)) as copy:
        assert copy.execute("PRAGMA user_version").fetchone() == (len(MIGRATIONS),)


def test_newer_schema_is_rejected_unchanged(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And its backups are none for this one."""
    monkeypatch.setattr(storage, "MIGRATIONS", MIGRATIONS[:1])
    before = path.read_bytes()
    with pytest.raises(CannotStart, match="has schema 2, and this miLLM knows 1"):
        Database(path)
    assert path.read_bytes() == before
    assert backups.newest_valid_backup(path, 1) is None


def test_full_disk_loses_nothing_and_reads_work(tmp_path: Path) -> None:
    """A limit on the file's pages is what a full disk is to SQLite: SQLITE_FULL."""
    path = tmp_path / "millm.db"
    with closing(Database(path)) as database:
        store = ProfileStore(database)
        store.add(Profile(name="before"))
        (pages,) = database.read("PRAGMA page_count")[0]
        database.read(f"PRAGMA max_page_count = {pages}")
        for write in (
            lambda: store.add(Profile(name="large", description="x" * 2000, tags=("y" * 60,) * 50)),
            lambda: store.replace("before", Profile(name="large", description="x" * 2000, tags=("y" * 60,) * 50)),
        ):
            with pytest.raises(NotStored, match=r"full.*make room"):
                write()
        assert [profile.name for profile in store.all()] == ["before"]
        assert (names(database), store.revision) == (["before"], 1)
        database.read("PRAGMA max_page_count = 1000000")
        store.add(Profile(name="after"))
        assert names(database) == ["after", "before"]


def test_profiles_of_a_newer_schema_stay(tmp_path: Path) -> None:
    """Its name is taken all the same."""
    with closing(Database(tmp_path / "millm.db")) as database:
        strange = json.dumps({"name": "strange", "version": "7"})
        database.write(
            lambda connection: connection.execute(
                "INSERT INTO profiles (key, name, body, created, updated) VALUES ('strange', 'strange', ?, 0, 0)",
                (strange,),
            )
        )
        store = ProfileStore(database)
        assert list(store.all()) == []
        assert database.read("SELECT body FROM profiles") == [(strange,)]
