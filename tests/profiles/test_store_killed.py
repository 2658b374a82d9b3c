"""A writer of profiles is killed a hundred times with SIGKILL; acknowledged writes survive."""

import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from itertools import pairwise
from pathlib import Path

import pytest

from millm.database import Database
from millm.profiles.store import ProfileStore

pytestmark = pytest.mark.slow

KILLS = 100
Change = tuple[str, str | None]
"""A profile's name and what it says from then on; None: it is deleted."""


def test_acknowledged_writes_survive_a_kill(tmp_path: Path) -> None:
    path, expected, done = tmp_path / "millm.db", dict[str, str](), 0
    command = [sys.executable, "-m", "tests.profiles.writer", str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as writers:
        for number in range(KILLS):
            acknowledged, begun = life(writers, number)
            for change in acknowledged:
                apply(expected, change)
            done += len(acknowledged)
            with closing(Database(path)) as database:
                found = {profile.name: profile.description for profile in ProfileStore(database).all()}
                assert database.notice is None
            if found != expected and begun:  # written, and killed before it could say so
                apply(expected, begun)
            assert found == expected
        assert writers.stdin
        writers.stdin.close()
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    assert done > KILLS


def life(writers: "subprocess.Popen[str]", seed: int) -> tuple[list[Change], Change | None]:
    """(acknowledged writes, started writes)."""
    assert writers.stdin
    assert writers.stdout
    writers.stdin.write(f"{seed}\n")
    writers.stdin.flush()
    said: list[Change] = []
    while not said or said[-1][0] != "gone":
        what, text = json.loads(writers.stdout.readline())
        if what == "writer":
            time.sleep(random.Random(seed).uniform(0, 0.06))
            os.kill(int(text), signal.SIGKILL)
        else:
            said.append((what, text))
    acknowledged = [change for change, (after, _) in pairwise(said) if after == "done"]
    begun = said[-2] if len(said) > 1 and said[-2][0] != "done" else None
    return acknowledged, begun


def apply(profiles: dict[str, str], change: Change) -> None:
    name, text = change
    if text is None:
        profiles.pop(name, None)
    else:
        profiles[name] = text
