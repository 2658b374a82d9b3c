"""Runs the real `millm` command and looks at what it said and what it left behind."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.fixtures import fork_server
from tests.fixtures.process import environment

PATIENCE = 120
"""Seconds for a command to end, on a machine that is busy with other things."""


@dataclass(frozen=True)
class Ran:
    """What a command did."""

    code: int
    out: str
    err: str
    left: list[int]
    """Processes that it started and that outlived it."""

    @property
    def last_line(self) -> str:
        return self.err.strip().splitlines()[-1] if self.err.strip() else ""


def millm(*arguments: str, home: Path, stdin: str = "", **variables: str) -> Ran:
    """`millm ARGUMENTS`, to its end."""
    with started(*arguments, home=home, **variables) as process:
        out, err = process.communicate(stdin, timeout=PATIENCE)
        return Ran(process.returncode, out, err, left_by(process))


@contextmanager
def started(*arguments: str, home: Path, **variables: str) -> Iterator[subprocess.Popen[str]]:
    """`millm ARGUMENTS` in a session of its own; whatever is left of it at the end is killed."""
    process = subprocess.Popen(
        [sys.executable, "-m", "millm", *arguments],
        env={**environment(home), **variables},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        for pid in children_of(process):
            os.kill(pid, signal.SIGKILL)
        process.kill()
        process.communicate()


def left_by(process: "subprocess.Popen[str]") -> list[int]:
    """What outlives it; the dying get a second to be gone."""
    deadline = time.monotonic() + 1
    while (found := children_of(process)) and time.monotonic() < deadline:
        time.sleep(0.02)
    return found


def children_of(process: "subprocess.Popen[str]") -> list[int]:
    """The processes of its session, itself and the suite's own fork server not counted."""
    stats = {pid: stat for pid in Path("/proc").iterdir() if pid.name.isdecimal() and (stat := _stat(pid))}
    return [
        int(folder.name)
        for folder, (name, state, _, _, session, *_) in stats.items()
        if int(session) == process.pid != int(folder.name) and state != "Z" and name != fork_server.NAME
    ]


def _stat(folder: Path) -> list[str]:
    """Name, state, parent, process group, session, …; empty if it has just ended."""
    try:
        head, _, rest = (folder / "stat").read_text().rpartition(")")
    except (FileNotFoundError, ProcessLookupError):
        return []
    return [head.partition("(")[2], *rest.split()]


def assert_refused(ran: Ran, *words: str) -> None:
    """It ended with exit code 1 and one sentence that holds these words, and left nothing behind."""
    assert ran.code == 1, ran
    assert ran.last_line.startswith("error: "), ran.err
    assert ran.err.count("error: ") == 1, ran.err
    assert "Traceback" not in ran.err
    assert [word for word in words if word not in ran.last_line] == [], ran.last_line
    assert ran.left == []


def assert_refused_at_once(ran: Ran, *words: str) -> None:
    """Before anything was loaded: the sentence is all that was said."""
    assert_refused(ran, *words)
    assert ran.err.strip() == ran.last_line
