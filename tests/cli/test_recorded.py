"""What docs/cli.md shows of a terminal is what the commands show, and fits in it."""

import pytest

from tests.cli.make_recordings import FOLDER, recorded, without_figures
from tests.fixtures.screen import WIDTH
from tools.make_docs import RECORDED


@pytest.fixture(scope="module")
def shown() -> dict[str, str]:
    return recorded()


@pytest.mark.parametrize("name", RECORDED)
def test_the_recording_is_fresh(name: str, shown: dict[str, str]) -> None:
    kept = (FOLDER / f"{name}.txt").read_text("utf-8")
    assert without_figures(kept) == without_figures(shown[name]), "run `python -m tests.cli.make_recordings`"


@pytest.mark.parametrize("name", RECORDED)
def test_it_fits(name: str) -> None:
    lines = (FOLDER / f"{name}.txt").read_text("utf-8").splitlines()
    assert [line for line in lines if len(line) > WIDTH and not line.startswith("$ ")] == []
    assert not any(word in line for line in lines for word in ("…", "error:", "Traceback"))


def test_nothing_else_is_kept() -> None:
    assert {path.stem for path in FOLDER.iterdir()} == set(RECORDED)
