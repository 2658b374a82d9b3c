"""The recordings in docs/terminal match the commands and fit 80 columns."""

import pytest

from tests.cli.make_recordings import FOLDER, record, without_figures
from tests.fixtures.screen import WIDTH
from tools.make_docs import RECORDED


@pytest.fixture(scope="module")
def recordings() -> dict[str, str]:
    return record()


@pytest.mark.slow
@pytest.mark.parametrize("name", RECORDED)
def test_recordings_match_the_commands(name: str, recordings: dict[str, str]) -> None:
    expected = (FOLDER / f"{name}.txt").read_text("utf-8")
    assert without_figures(expected) == without_figures(recordings[name]), "run `python -m tests.cli.make_recordings`"


@pytest.mark.parametrize("name", RECORDED)
def test_recordings_fit_the_terminal(name: str) -> None:
    lines = (FOLDER / f"{name}.txt").read_text("utf-8").splitlines()
    assert [line for line in lines if len(line) > WIDTH and not line.startswith("$ ")] == []
    assert not any(word in line for line in lines for word in ("…", "error:", "Traceback"))


def test_there_are_no_other_recordings() -> None:
    assert {path.stem for path in FOLDER.iterdir()} == set(RECORDED)
