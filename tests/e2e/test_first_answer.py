"""The first answers after a start use everything that was restored."""

import socket
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx

from tests.cli.terminal import started
from tests.fixtures.process import running

BODY = {"model": "tiny-llama", "prompt": "The sea is wide", "max_tokens": 12, "temperature": 0, "ignore_eos": True}
ASKING = 8
"""Concurrent, so that requests arrive at every moment of the start."""
KNOB = {"features": [{"index": 3, "strength": 6}]}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def summary(answer: httpx.Response) -> tuple[str, str, int]:
    receipt = answer.json()["millm"]
    return answer.json()["choices"][0]["text"], receipt["steering"], receipt["tokens_steered"]


def test_the_first_answer_is_steered_from_its_first_token(tmp_path: Path, tiny_model: Path, tiny_sae: Path) -> None:
    home = tmp_path / "home"
    with running("serve", str(tiny_model), "--sae", str(tiny_sae), model="tiny-llama", home=home) as server:
        httpx.put(f"{server.url}/api/steering", json=KNOB).raise_for_status()
        before = summary(httpx.post(f"{server.base_url}/completions", json=BODY, timeout=30))
    url = f"http://127.0.0.1:{(port := free_port())}"
    quiet = {"MILLM_LOG_LEVEL": "error"}  # nobody reads its lines
    with started("serve", "--port", str(port), home=home, **quiet), ThreadPoolExecutor(ASKING) as pool:
        first = list(pool.map(_first, [url] * ASKING))
    assert [summary(answer) for answer in first] == [before] * ASKING
    assert before[2] > 12


def _first(url: str) -> httpx.Response:
    """Repeated until the status is no longer 503."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            answer = httpx.post(f"{url}/v1/completions", json=BODY, timeout=30)
        except httpx.TransportError:
            continue
        if answer.status_code != 503:
            return answer
        assert answer.json()["error"]["code"] == "model_not_loaded"
    raise AssertionError("it did not start")
