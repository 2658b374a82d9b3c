"""A real server is stopped during answers: it rejects new requests, lets running ones finish and logs the shutdown.

A stopped engine process (SIGSTOP) holds the answers.
"""

import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from websockets.sync.client import connect

from tests.fixtures.process import Server, running
from tests.fixtures.tiny import write_profiles

pytestmark = pytest.mark.slow

ASKED = {"model": "tiny-llama", "prompt": "The sea is wide", "max_tokens": 40, "temperature": 0, "ignore_eos": True}
SLOW = 20.0
"""Seconds; a server that stops in less has not waited for MILLM_STOP_TIMEOUT in vain."""
Streamed = tuple[int, list[Any]]
"""Status and what came as `data:`."""


@dataclass
class Held:
    """A server whose running answers are held until `release`."""

    server: Server
    engine: psutil.Process
    pool: ThreadPoolExecutor

    def ask(self, **fields: Any) -> "Future[httpx.Response]":
        return self.pool.submit(post, self.server, **fields)

    def stream(self, **fields: Any) -> "Future[Streamed]":
        """Returns after the request was accepted."""
        begun = threading.Event()
        future = self.pool.submit(stream, self.server, begun, **fields)
        assert begun.wait(30)
        return future

    def get(self, address: str) -> httpx.Response:
        return httpx.get(f"{self.server.url}{address}", timeout=10, trust_env=False)

    def put(self, address: str, body: object) -> httpx.Response:
        return httpx.put(f"{self.server.url}{address}", json=body, timeout=10, trust_env=False)

    def hold(self) -> None:
        self.engine.suspend()

    def release(self) -> None:
        self.engine.resume()

    def told(self, words: str) -> bool:
        return any(words in line for line in self.server.lines)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> float:
        """Returns the time, after the server has noticed."""
        os.kill(self.server.process.pid, number)
        until(lambda: self.get("/readyz").json()["status"] == "draining")
        return time.monotonic()

    def ended(self) -> int:
        return self.server.process.wait(SLOW)


def until(is_so: Any, seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def post(server: Server, **fields: Any) -> httpx.Response:
    return httpx.post(f"{server.base_url}/completions", json=ASKED | fields, timeout=60, trust_env=False)


def stream(server: Server, begun: threading.Event, address: str = "/completions", **fields: Any) -> Streamed:
    body, found = ASKED | {"stream": True} | fields, []
    with httpx.stream("POST", f"{server.base_url}{address}", json=body, timeout=60, trust_env=False) as answer:
        for line in answer.iter_lines():
            begun.set()
            if line.startswith("data: "):
                told = line.removeprefix("data: ")
                found.append(told if told == "[DONE]" else json.loads(told))
    begun.set()
    return answer.status_code, found


@contextmanager
def held(model: Path, sae: Path, home: Path, **settings: Any) -> Iterator[Held]:
    """Requests, streamed or not, start before `hold`."""
    with running("serve", str(model), "--sae", str(sae), model="tiny-llama", home=home, **settings) as server:
        (engine,) = [
            child
            for child in psutil.Process(server.process.pid).children()
            if "spawn_main" in " ".join(child.cmdline())
        ]
        with ThreadPoolExecutor(8) as pool:
            there = Held(server, engine, pool)
            try:
                yield there
            finally:
                if engine.is_running():
                    engine.resume()


@pytest.fixture
def there(tiny_model: Path, tiny_sae: Path, tmp_path: Path) -> Iterator[Held]:
    with held(tiny_model, tiny_sae, tmp_path / "home") as found:
        yield found


def begin(there: Held) -> tuple["Future[Streamed]", "Future[httpx.Response]"]:
    """Start a streamed and an unstreamed answer, and hold both."""
    streamed = there.stream(max_tokens=200)
    there.hold()
    whole = there.ask(max_tokens=3)
    until(lambda: there.get("/api/status").json()["in_flight"] == 2)
    return streamed, whole


def test_running_answers_finish_and_new_requests_are_rejected(there: Held) -> None:
    with httpx.Client(base_url=there.server.url, timeout=10, trust_env=False) as kept:
        assert kept.get("/readyz").status_code == 200
        streamed, whole = begin(there)
        stopped = there.stop()
        for get in (kept.get, there.get):  # a connection that was there before, and new ones
            ready = get("/readyz")
            assert (ready.status_code, ready.json()["status"]) == (503, "draining")
            assert get("/healthz").status_code == 200
            assert get("/api/status").json()["status"] == "draining"
        for method, address in (("POST", "/v1/completions"), ("PUT", "/api/steering"), ("POST", "/api/sweep")):
            refused = kept.request(method, address, json=ASKED)
            assert (refused.status_code, refused.json()["error"]["code"]) == (503, "shutting_down")
            assert int(refused.headers["retry-after"]) > 0
    until(lambda: there.told("stopping: waiting up to 30 s for 2 answers; Ctrl+C again stops at once"))
    assert there.server.process.poll() is None
    there.release()
    assert whole.result(30).json()["usage"]["completion_tokens"] == 3
    status, events = streamed.result(30)
    assert (status, events[-1], events[-2]["choices"][0]["finish_reason"]) == (200, "[DONE]", "length")
    assert there.ended() == 0
    assert time.monotonic() - stopped < SLOW


def test_unfinished_answers_get_shutting_down(tiny_model: Path, tiny_sae: Path, tmp_path: Path) -> None:
    with held(tiny_model, tiny_sae, tmp_path, stop_timeout=1.5) as there:
        streamed, whole = begin(there)
        responded = there.stream(address="/responses", input="The sea", max_output_tokens=200, prompt=None)
        stopped = there.stop()
        status, events = streamed.result(30)
        took = time.monotonic() - stopped
        there.release()
        error = events[-2]["error"]
        assert (status, events[-1]) == (200, "[DONE]")
        assert set(error) == {"message", "type", "param", "code"}
        assert (error["code"], error["type"]) == ("shutting_down", "server_error")
        assert 1.0 < took < 6.0
        answer = whole.result(30)
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "shutting_down")
        assert int(answer.headers["retry-after"]) > 0
        assert responded.result(30)[1][-1]["type"] in ("response.failed", "error")
        assert there.ended() == 0
        until(lambda: there.told("3 answers had not ended"))


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
def test_second_signal_stops_at_once(there: Held, second: signal.Signals) -> None:
    streamed, whole = begin(there)
    there.stop(signal.SIGINT)
    again = time.monotonic()
    os.kill(there.server.process.pid, second)
    assert streamed.result(30)[1][-2]["error"]["code"] == "shutting_down"
    assert whole.result(30).status_code == 503
    there.release()
    assert there.ended() == 0
    assert time.monotonic() - again < 5


def test_idle_server_stops_at_once_and_closes_websockets(there: Held) -> None:
    address = there.server.url.replace("http", "ws") + "/api/events"
    with connect(address, proxy=None) as listening:
        assert json.loads(listening.recv())[0]["type"] == "hello"
        began = time.monotonic()
        os.kill(there.server.process.pid, signal.SIGTERM)
        told = [event for frame in listening for event in json.loads(frame)]
    assert [event["status"] for event in told if event["type"] == "status"] == ["draining"]
    assert (listening.close_code, listening.close_reason) == (1001, "the server is being stopped")
    assert there.ended() == 0
    assert time.monotonic() - began < 5
    assert not there.told("stopping:")


def test_acknowledged_state_is_restored_after_a_stop(tiny_model: Path, tiny_sae: Path, tmp_path: Path) -> None:
    """Model, SAE and active profile are set over HTTP; SIGTERM arrives during an answer."""
    home = tmp_path / "home"
    write_profiles(home / "profiles")
    with held(tiny_model, tiny_sae, home) as there:
        assert there.put("/api/steering", {"profile": "push"}).status_code == 200
        before, said = situation(there), there.ask(max_tokens=12).result(30).json()
        streamed = there.stream(max_tokens=200)
        os.kill(there.server.process.pid, signal.SIGTERM)
        assert streamed.result(30)[1][-1] == "[DONE]"
        assert there.ended() == 0
    assert before[2] == "push"
    with running("serve", model="tiny-llama", home=home) as server, ThreadPoolExecutor(1) as pool:
        again = Held(server, psutil.Process(server.process.pid), pool)
        assert situation(again) == before
        told = again.ask(max_tokens=12).result(30).json()
    assert told["choices"][0]["text"] == said["choices"][0]["text"]
    assert told["millm"]["steering"] == said["millm"]["steering"]


def situation(there: Held) -> tuple[str, list[str], str]:
    status = there.get("/api/status").json()
    return status["model"]["name"], [sae["sae"] for sae in status["saes"]], status["steering"]["profile"]
