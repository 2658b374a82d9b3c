"""Ctrl+C ends a server that answers nobody at once, whatever else it is doing, and leaves no process behind."""

import re
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from math import inf
from pathlib import Path

import httpx
import pytest

from tests.cli.terminal import PATIENCE, children_of, left_by, started
from tests.fixtures.fakehub import serving

pytestmark = pytest.mark.slow

AT_ONCE = 5
"""Seconds."""


def interrupt(process: "subprocess.Popen[str]", number: signal.Signals = signal.SIGINT) -> int:
    """Its exit code; it must end at once."""
    process.send_signal(number)
    code = process.wait(AT_ONCE)
    assert left_by(process) == []
    return code


def wait_until(happened: Callable[[], object], process: "subprocess.Popen[str]") -> None:
    deadline = time.monotonic() + PATIENCE
    while not happened():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.05)


def answers(url: str) -> bool:
    try:
        return httpx.get(url, trust_env=False).is_success
    except httpx.TransportError:
        return False


def free_port() -> str:
    """From the kernel, by way of a listener that is gone again."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return str(probe.getsockname()[1])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_while_the_model_is_loading(number: signal.Signals, tiny_model: Path, tmp_path: Path) -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    with started("serve", str(tiny_model), "--port", port, home=tmp_path) as process:
        wait_until(lambda: children_of(process) and answers(f"{url}/healthz"), process)
        assert not answers(f"{url}/readyz")
        assert interrupt(process, number) == 0
    assert not answers(f"{url}/healthz")


def test_while_a_download_hangs(tiny_model: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_model, tmp_path / "hub" / "tiny" / "llama")
    with serving(tmp_path / "hub") as hub:
        hub.fail(".safetensors", "stall", times=inf, after=1000)
        variables = hub.environment(tmp_path / "cache")
        with started("serve", "tiny/llama", "--port", "0", home=tmp_path / "home", **variables) as process:
            wait_until(lambda: "tiny/llama/model.safetensors" in hub.downloaded, process)
            assert interrupt(process) == 0


def test_when_it_is_asked_twice_while_it_answers(tiny_model: Path, tiny_sae: Path, tmp_path: Path) -> None:
    """And a profile may be named by its file in the home folder, where it would be found anyway."""
    profile = tmp_path / "profiles" / "mine.json"
    profile.parent.mkdir()
    profile.write_text('{"name": "mine", "features": [{"index": 3, "strength": 6.0}]}')
    arguments = ["serve", str(tiny_model), "--sae", str(tiny_sae), "--profile", str(profile), "--port", "0"]
    with started(*arguments, home=tmp_path) as process:
        url = ready_url(process)
        body = {"model": "tiny-llama", "messages": [{"role": "user", "content": "The sea"}], "stream": True}
        with httpx.stream("POST", f"{url}/v1/chat/completions", json=body, timeout=PATIENCE) as answer:
            next(answer.iter_bytes())
            process.send_signal(signal.SIGINT)
            assert interrupt(process) == 0
    assert not answers(f"{url}/healthz")


def ready_url(process: "subprocess.Popen[str]") -> str:
    assert process.stderr is not None
    for line in process.stderr:
        if match := re.search(r"ready\s+(http://\S+)", line):
            threading.Thread(target=process.stderr.read, daemon=True).start()
            return match[1]
    raise AssertionError("it did not start")


def test_before_anything_is_running(tiny_model: Path, tmp_path: Path) -> None:
    """Python is still importing: there is no server that could stop in order."""
    with started("serve", str(tiny_model), "--port", "0", home=tmp_path) as process:
        time.sleep(0.3)
        process.send_signal(signal.SIGINT)
        process.wait(AT_ONCE)
        assert process.returncode in (0, 130, -signal.SIGINT)
        assert left_by(process) == []
