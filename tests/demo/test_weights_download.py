"""A download command: its progress, failure, stall and interruption."""

import os
import sys
import time
from pathlib import Path

import pytest

from millm.demo.weights import run_download_command
from millm.hub.home import OnProgress

GROW = """
import os, pathlib, time
file = pathlib.Path(os.environ["TMPDIR"]) / "part"
for megabyte in range(1, 5):
    file.write_bytes(bytes(megabyte << 20))
    time.sleep(0.15)
"""
STALL = "import os, pathlib, time; pathlib.Path('pid').write_text(str(os.getpid())); time.sleep(600)"
TOTAL = 4 << 20


def run(code: str, folder: Path, on_progress: OnProgress = lambda *_: None, stall_seconds: float = 60) -> str | None:
    there = f"import os; os.chdir({str(folder)!r})\n{code}"
    return run_download_command([sys.executable, "-c", there], folder, TOTAL, on_progress, stall_seconds=stall_seconds)


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_progress_grows_to_the_total(tmp_path: Path) -> None:
    seen: list[tuple[str, int, int]] = []
    assert run(GROW, tmp_path, lambda *step: seen.append(step)) is None
    done = [step[1] for step in seen]
    assert done == sorted(done)
    assert len(set(done)) >= 4
    assert seen[-1] == ("download", TOTAL, TOTAL)


def test_failure_returns_the_output(tmp_path: Path) -> None:
    output = run("print('looking'); raise SystemExit('ERROR: not there')", tmp_path)
    assert output is not None
    assert "looking" in output
    assert "ERROR: not there" in output


def test_stalled_child_is_stopped(tmp_path: Path) -> None:
    output = run(STALL, tmp_path, stall_seconds=1.0)
    assert output is not None
    assert "nothing arrived for 1 s" in output
    assert not is_running(int((tmp_path / "pid").read_text()))


def test_interruption_ends_the_child(tmp_path: Path) -> None:
    def interrupt(*_step: object) -> None:
        while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
            time.sleep(0.01)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(STALL, tmp_path, interrupt)
    assert not is_running(int((tmp_path / "pid").read_text()))
