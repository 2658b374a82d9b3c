"""Run the real `millm` command: its exit code, its output, and the processes that outlive it."""

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from tests.fixtures import fork_server
from tests.fixtures.process import environment

TIMEOUT_SECONDS = 120
"""For a command to end, on a busy machine."""


@dataclass(frozen=True)
class CompletedCommand:
    code: int
    out: str
    err: str
    leftover_processes: list[int]
    """Ids of child processes that outlived the command."""

    @property
    def last_line(self) -> str:
        return self.err.strip().splitlines()[-1] if self.err.strip() else ""


def millm(*arguments: str, home: Path, stdin: str = "", **variables: str) -> CompletedCommand:
    """Run `millm ARGUMENTS` to its end."""
    with started(*arguments, home=home, **variables) as process:
        out, err = process.communicate(stdin, timeout=TIMEOUT_SECONDS)
        return CompletedCommand(process.returncode, out, err, leftover_processes(process))


@contextmanager
def started(*arguments: str, home: Path, **variables: str) -> Iterator[subprocess.Popen[str]]:
    """`millm ARGUMENTS` in its own session; at the end all of its processes are killed."""
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


def leftover_processes(process: "subprocess.Popen[str]") -> list[int]:
    """Child processes that still exist after a second."""
    deadline = time.monotonic() + 1
    while (children := children_of(process)) and time.monotonic() < deadline:
        time.sleep(0.02)
    return children


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


def assert_refused(ran: CompletedCommand, *words: str) -> None:
    """Exit code 1, one error line with these words, and no process left."""
    assert ran.code == 1, ran
    assert ran.last_line.startswith("error: "), ran.err
    assert ran.err.count("error: ") == 1, ran.err
    assert "Traceback" not in ran.err
    assert [word for word in words if word not in ran.last_line] == [], ran.last_line
    assert ran.leftover_processes == []


def assert_refused_at_once(ran: CompletedCommand, *words: str) -> None:
    """Rejected before anything was loaded: the error line is the only output."""
    assert_refused(ran, *words)
    assert ran.err.strip() == ran.last_line


def wait_until(condition: Callable[[], object], process: "subprocess.Popen[str]") -> None:
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while not condition():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.05)


def answers(url: str) -> bool:
    try:
        return httpx.get(url, trust_env=False).is_success
    except httpx.TransportError:
        return False


def free_port() -> str:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return str(probe.getsockname()[1])


def ready_url(process: "subprocess.Popen[str]") -> str:
    """Wait for the `ready` line of a server; returns its URL."""
    assert process.stderr is not None
    for line in process.stderr:
        if match := re.search(r"ready\s+(http://\S+)", line):
            threading.Thread(target=process.stderr.read, daemon=True).start()
            return match[1]
    raise AssertionError("the server did not start")
