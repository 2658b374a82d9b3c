"""Figures are on disk after each section, also when the next one fails."""

import json
from pathlib import Path

import pytest

from benchmarks.ratios import RatioEstimate
from benchmarks.record import Record
from millm.errors import Unavailable


def failing(error: BaseException) -> object:
    raise error


def test_a_failed_section_does_not_affect_the_others(tmp_path: Path) -> None:
    path = tmp_path / "results" / "some.json"
    record = Record(path, "three answers")
    record.section("modes/one", lambda: RatioEstimate(1.5, (1.25, 2.0), 3))
    record.section("modes/two", lambda: failing(Unavailable("nobody answers")))
    record.section("modes/four", lambda: failing(FileNotFoundError(2, "No such file", "/home/someone/python")))
    with pytest.raises(KeyboardInterrupt):
        record.section("modes/three", lambda: failing(KeyboardInterrupt()))
    saved = json.loads(path.read_text())
    assert saved["what"] == "three answers"
    assert {"cpu", "cores", "torch", "transformers", "millm"} < set(saved["machine"])
    assert saved["modes"] == {
        "one": {"ratio": 1.5, "interval_95": [1.25, 2.0], "blocks": 3},
        "two": {"not_run": "nobody answers"},
        "four": {"not_run": "FileNotFoundError"},
    }
    assert [path.name for path in path.parent.iterdir()] == ["some.json"]


def test_other_exceptions_propagate(tmp_path: Path) -> None:
    with pytest.raises(TypeError):
        Record(tmp_path / "some.json", "").section("one", lambda: failing(TypeError()))
