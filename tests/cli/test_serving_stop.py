"""Ctrl+C stops an idle server within seconds, also while it loads or downloads, and leaves no process behind."""

import shutil
import signal
import subprocess
import time
from math import inf
from pathlib import Path

import httpx
import pytest

from tests.cli.terminal import (
    TIMEOUT_SECONDS,
    answers,
    children_of,
    free_port,
    leftover_processes,
    ready_url,
    started,
    wait_until,
)
from tests.fixtures.fakehub import serving

pytestmark = pytest.mark.slow

STOP_SECONDS = 5


def interrupt(process: "subprocess.Popen[str]", number: signal.Signals = signal.SIGINT) -> int:
    """Send a signal; returns the exit code of `process`, which must end within STOP_SECONDS."""
    process.send_signal(number)
    code = process.wait(STOP_SECONDS)
    assert leftover_processes(process) == []
    return code


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stop_while_the_model_is_loading(number: signal.Signals, tiny_model: Path, tmp_path: Path) -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    with started("serve", str(tiny_model), "--port", port, home=tmp_path) as process:
        wait_until(lambda: children_of(process) and answers(f"{url}/healthz"), process)
        assert not answers(f"{url}/readyz")
        assert interrupt(process, number) == 0
    assert not answers(f"{url}/healthz")


def test_stop_while_a_download_hangs(tiny_model: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_model, tmp_path / "hub" / "tiny" / "llama")
    with serving(tmp_path / "hub") as hub:
        hub.fail(".safetensors", "stall", times=inf, after=1000)
        variables = hub.environment(tmp_path / "cache")
        with started("serve", "tiny/llama", "--port", "0", home=tmp_path / "home", **variables) as process:
            wait_until(lambda: "tiny/llama/model.safetensors" in hub.downloaded, process)
            assert interrupt(process) == 0


def test_two_signals_stop_a_server_that_is_answering(tiny_model: Path, tiny_sae: Path, tmp_path: Path) -> None:
    """`--profile` also accepts a file in the home folder, which the start-up imports anyway."""
    profile = tmp_path / "profiles" / "mine.json"
    profile.parent.mkdir()
    profile.write_text('{"name": "mine", "features": [{"index": 3, "strength": 6.0}]}')
    arguments = ["serve", str(tiny_model), "--sae", str(tiny_sae), "--profile", str(profile), "--port", "0"]
    with started(*arguments, home=tmp_path) as process:
        url = ready_url(process)
        body = {"model": "tiny-llama", "messages": [{"role": "user", "content": "The sea"}], "stream": True}
        with httpx.stream("POST", f"{url}/v1/chat/completions", json=body, timeout=TIMEOUT_SECONDS) as answer:
            next(answer.iter_bytes())
            process.send_signal(signal.SIGINT)
            assert interrupt(process) == 0
    assert not answers(f"{url}/healthz")


def test_stop_during_imports(tiny_model: Path, tmp_path: Path) -> None:
    """While Python still imports, no server exists that could stop in order."""
    with started("serve", str(tiny_model), "--port", "0", home=tmp_path) as process:
        time.sleep(0.3)
        process.send_signal(signal.SIGINT)
        process.wait(STOP_SECONDS)
        assert process.returncode in (0, 130, -signal.SIGINT)
        assert leftover_processes(process) == []
