"""The home folder: one server at a time."""

import os
from pathlib import Path

import pytest

from millm.errors import CannotStart, HomeLocked
from millm.hub.home import Home


@pytest.fixture
def home(tmp_path: Path) -> Home:
    made = Home(tmp_path / "home")
    made.create()
    return made


def test_create_may_be_repeated(home: Home) -> None:
    (home.profiles / "mine.json").write_text("{}")
    home.create()
    assert (home.profiles / "mine.json").read_text() == "{}"
    assert home.canonical_saes.is_dir()


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CannotStart, match=r"MILLM_HOME=.*file cannot be used"):
        Home(tmp_path / "file").create()


def test_the_second_is_told_who_the_first_is(home: Home) -> None:
    with home.lock(), pytest.raises(HomeLocked, match=f"process {os.getpid()}"), Home(home.folder).lock():
        raise AssertionError("two servers in one home")


def test_a_lock_ends_with_its_holder(home: Home) -> None:
    for _ in range(2):
        with home.lock():
            assert (home.folder / "server.lock").read_text() == str(os.getpid())
