"""The home folder: one server at a time."""

import os
from pathlib import Path

import pytest

from millm.errors import CannotStart, HomeLocked
from millm.hub.home import Home


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = Home(tmp_path / "home")
    home.create()
    return home


def test_create_is_idempotent(home: Home) -> None:
    (home.profiles / "mine.json").write_text("{}")
    home.create()
    assert (home.profiles / "mine.json").read_text() == "{}"
    assert home.canonical_saes.is_dir()


def test_unusable_folder_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CannotStart, match=r"MILLM_HOME=.*file cannot be used"):
        Home(tmp_path / "file").create()


def test_second_server_gets_the_process_id_of_the_first(home: Home) -> None:
    with home.lock(), pytest.raises(HomeLocked, match=f"process {os.getpid()}"), Home(home.folder).lock():
        raise AssertionError("two servers in one home")


def test_lock_ends_with_its_process(home: Home) -> None:
    for _ in range(2):
        with home.lock():
            assert (home.folder / "server.lock").read_text() == str(os.getpid())
