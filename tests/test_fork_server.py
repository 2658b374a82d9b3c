"""A process that the suite forks from a warm one is like a cold one: words, codes, streams, parents."""

import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.cli.terminal import millm
from tests.fixtures import fork_server
from tests.fixtures.process import Server, environment


@pytest.mark.parametrize(
    "arguments", [(), ("--version",), ("sreve",), ("list",), ("ps", "--url", "http://127.0.0.1:9"), ("list", "--nope")]
)
def test_a_command_says_the_same(arguments: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    forked = millm(*arguments, home=tmp_path)
    monkeypatch.setattr(fork_server, "cold_only", True)
    assert forked == millm(*arguments, home=tmp_path)


def test_it_is_forked_and_looks_like_itself(server: Server) -> None:
    process = psutil.Process(server.process.pid)
    assert process.ppid() == os.getpid()
    assert process.cmdline()[:4] == [sys.executable, "-m", "millm", "serve"]
    engines = [child for child in process.children() if "multiprocessing.spawn" in " ".join(child.cmdline())]
    assert len(engines) == 1
    assert os.getsid(engines[0].pid) == os.getsid(process.pid)
    assert fork_server.NAME in {child.name() for child in process.children()}


def test_what_is_read_at_import_starts_cold(tmp_path: Path) -> None:
    """Another HF_HOME is another template's, another OMP_NUM_THREADS nobody's."""
    ours = environment(tmp_path)
    warm, light = fork_server.template_for(ours), fork_server.template_for({**ours, "HF_HOME": str(tmp_path)})
    assert warm is not None
    assert light is not None
    assert (warm.kind, light.kind) == ("warm", "light")
    assert fork_server.template_for({**ours, "OMP_NUM_THREADS": "7"}) is None


def test_nobody_reads_what_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def ended() -> tuple[int, bool]:
        reading, writing = os.pipe()
        os.close(reading)
        command = [sys.executable, "-m", "millm", "list"]
        with os.fdopen(writing, "wb") as out:
            done = subprocess.run(command, env=environment(tmp_path), cwd=tmp_path, stdout=out, stderr=subprocess.PIPE)
        return done.returncode, b"BrokenPipeError" in done.stderr

    forked = ended()
    monkeypatch.setattr(fork_server, "cold_only", True)
    assert forked == ended()
