"""A hub with the stand-ins and a cache of one's own; a library with a tiny model and a tiny SAE built in."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from millm.database import Database
from millm.hub.home import Home
from millm.hub.library import Library
from tests.fixtures.fakehub import FakeHub, serving
from tests.fixtures.hfcache import contents
from tests.hub.fetching import Site
from tests.hub.shelf import Shelf


@pytest.fixture
def site(repositories: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """With all that `tests/fixtures/repos.py` writes, which nobody changes."""
    with serving(repositories) as hub:
        enter(hub, tmp_path, monkeypatch)
        yield Site(hub, tmp_path)


@pytest.fixture
def own_site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """With nothing in it yet."""
    (tmp_path / "own").mkdir()
    with serving(tmp_path / "own") as hub:
        enter(hub, tmp_path, monkeypatch)
        yield Site(hub, tmp_path)


def enter(hub: FakeHub, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {**hub.environment(folder / "cache"), "HF_HUB_DOWNLOAD_TIMEOUT": "1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)


@pytest.fixture
def shelf(tmp_path: Path, tiny_model: Path, tiny_sae: Path, monkeypatch: pytest.MonkeyPatch) -> Shelf:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    home = Home(tmp_path / "home")
    home.create()
    database = Database(home.database)
    library = Library(home, database, {"tiny": tiny_model}, {"tiny-sae": tiny_sae})
    return Shelf(library, tmp_path / "cache", home, database, contents(tiny_model), contents(tiny_sae))
