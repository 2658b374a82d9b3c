"""A library with a tiny model and a tiny SAE built in."""

from pathlib import Path

import pytest

from millm.hub.home import Home
from millm.hub.library import Library
from millm.storage import Database
from tests.fixtures.hfcache import contents
from tests.hub.shelf import Shelf


@pytest.fixture
def shelf(tmp_path: Path, tiny_model: Path, tiny_sae: Path, monkeypatch: pytest.MonkeyPatch) -> Shelf:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    home = Home(tmp_path / "home")
    home.create()
    database = Database(home.folder / "millm.db")
    library = Library(home, database, {"tiny": tiny_model}, {"tiny-sae": tiny_sae})
    return Shelf(library, tmp_path / "cache", home, database, contents(tiny_model), contents(tiny_sae))
