"""Start a server for a benchmark, wait until it is ready, measure its memory, and stop it."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import httpx

from millm.cli.http_client import RemoteServer
from millm.errors import CannotStart

PATIENCE = 120.0
"""Seconds for a server to answer, and to say its next word."""


@dataclass(frozen=True)
class Running:
    """A server that answers."""

    remote: RemoteServer
    pid: int
    ready_seconds: float
    """From its start."""

    def peak_mb(self) -> dict[str, int]:
        """The most memory that its own process and its largest child ever held, in MB (VmHWM, Linux only)."""
        children = [_peak_mb(child) for child in _children(self.pid)]
        return {"server": _peak_mb(self.pid), "engine": max(children, default=0)}


def millm(model: Path, home: Path, *arguments: str, **settings: str) -> AbstractContextManager[Running]:
    """`millm serve MODEL ARGUMENTS`, with MILLM_ `settings` by their own names in place of the caller's."""
    return _serve(model, home, arguments, {f"MILLM_{name.upper()}": value for name, value in settings.items()})


def checkout(tree: Path, model: Path, home: Path, *arguments: str) -> AbstractContextManager[Running]:
    """`millm serve MODEL ARGUMENTS` from the sources in `tree`, in the environment of the caller."""
    return _serve(model, home, arguments, {"PYTHONPATH": str(tree / "src")})


def _serve(
    model: Path, home: Path, arguments: Sequence[str], given: Mapping[str, str]
) -> AbstractContextManager[Running]:
    command = [sys.executable, "-m", "millm", "serve", str(model), "--home", str(home), *arguments]
    variables = {**environment(), **given, "COLUMNS": "200"}
    return serving(command, home.with_suffix(".log"), is_ready=_says_ready, variables=variables)


def environment() -> dict[str, str]:
    """The caller's environment without settings of miLLM and limits of threads, so that every peer gets all cores."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("MILLM_", "OMP_", "MKL_"))}


def _says_ready(_: str, log: str) -> bool:
    """Once every SAE is attached; the server answers before that."""
    return "ready  http://" in log


def lists_models(url: str, _: str) -> bool:
    with contextlib.suppress(httpx.TransportError):
        return httpx.get(f"{url}/v1/models", trust_env=False).is_success
    return False


IsReady = Callable[[str, str], bool]
"""Called with a server's URL and its output so far."""


@contextlib.contextmanager
def serving(
    command: Sequence[str], log: Path, *, is_ready: IsReady = lists_models, variables: Mapping[str, str] = os.environ
) -> Iterator[Running]:
    """Run `command --port N`, from ready to exit.

    Raises CannotStart with its last output when it does not become ready.
    """
    port = _free_port()
    url = f"http://127.0.0.1:{port}"
    started = time.perf_counter()
    with log.open("wb") as out:
        process = subprocess.Popen(
            [*command, "--port", str(port)], stdout=out, stderr=out, env=variables, start_new_session=True
        )
    try:
        _wait(process, lambda: is_ready(url, log.read_text(errors="replace")), log)
        yield Running(RemoteServer(url, read_timeout=PATIENCE), process.pid, round(time.perf_counter() - started, 2))
    finally:
        _stop(process)


def _wait(process: "subprocess.Popen[bytes]", is_ready: Callable[[], bool], log: Path) -> None:
    deadline = time.monotonic() + PATIENCE
    while process.poll() is None and time.monotonic() < deadline:
        if is_ready():
            return
        time.sleep(0.05)
    words = log.read_text(errors="replace").strip().splitlines()[-1:]
    raise CannotStart(f"the server did not start: {''.join(words)}")


def _stop(process: "subprocess.Popen[bytes]") -> None:
    process.terminate()
    try:
        process.wait(30)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _children(pid: int) -> list[int]:
    return [int(child) for path in Path(f"/proc/{pid}/task").glob("*/children") for child in path.read_text().split()]


def _peak_mb(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) // 1024 for line in lines if line.startswith("VmHWM"))
