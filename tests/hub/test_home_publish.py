"""Folders are published complete or not at all, also when processes die or compete."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from millm.hub.home import publish

SLOW_BUILD = """
import sys, time
from pathlib import Path
from millm.hub.home import publish

def build(folder):
    (folder / "half").write_text("theirs")
    print("building", flush=True)
    sys.stdin.readline()
    (folder / "whole").write_text("theirs")

publish(Path(sys.argv[1]), build)
"""


def build(folder: Path) -> None:
    (folder / "inner").mkdir()
    (folder / "inner" / "whole").write_text("ours")


def never(_folder: Path) -> None:
    raise AssertionError("built again")


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def start_slow_build(target: Path) -> "subprocess.Popen[str]":
    """Another process that publishes `target` and waits for a line before it finishes."""
    child = subprocess.Popen(
        [sys.executable, "-c", SLOW_BUILD, str(target)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "building\n"
    return child


def test_build_runs_once(tmp_path: Path) -> None:
    target = tmp_path / "new" / "folder"
    assert publish(target, build) == target
    assert (target / "inner" / "whole").read_text() == "ours"
    assert publish(target, never) == target
    assert names(target.parent) == ["folder"]


def test_target_appears_only_when_complete(tmp_path: Path) -> None:
    target = tmp_path / "folder"
    seen = []

    def watching(folder: Path) -> None:
        build(folder)
        seen.append((target.exists(), folder.parent, folder.name.startswith(".")))

    publish(target, watching)
    assert seen == [(False, tmp_path, True)]


@pytest.mark.parametrize("raised", [OSError("disk full"), KeyboardInterrupt()])
def test_failed_build_leaves_no_folder(tmp_path: Path, raised: BaseException) -> None:
    def failing(folder: Path) -> None:
        build(folder)
        raise raised

    with pytest.raises(type(raised)):
        publish(tmp_path / "folder", failing)
    assert names(tmp_path) == []


def test_killed_build_is_removed_by_the_next(tmp_path: Path) -> None:
    target = tmp_path / "folder"
    with start_slow_build(target) as child:
        child.kill()
    assert not target.exists()
    assert len(names(tmp_path)) == 1
    publish(target, build)
    assert names(tmp_path) == ["folder"]
    assert not (target / "half").exists()


def test_first_of_two_concurrent_builds_wins(tmp_path: Path) -> None:
    target = tmp_path / "folder"
    with start_slow_build(target) as child:
        publish(target, build)
        assert len(names(tmp_path)) == 2
        child.communicate("go\n")
    assert child.returncode == 0
    assert names(tmp_path) == ["folder"]
    assert names(target) == ["inner"]


def test_reuse_is_instant(tmp_path: Path) -> None:
    publish(tmp_path / "folder", build)
    start = time.process_time()
    publish(tmp_path / "folder", never)
    assert time.process_time() - start < 0.1
