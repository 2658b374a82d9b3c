"""With MILLM_LOG_FORMAT=json every output line of a server is a JSON object with its request id."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from websockets.sync.client import connect

from tests.fixtures.process import environment

KEY = "key-of-the-house"
TOKEN = "hf_" + "abcDEF0123456789"
ASKED = {"model": "tiny-llama", "prompt": "The sea", "max_tokens": 7, "temperature": 0, "ignore_eos": True}


@dataclass
class Talker:
    """A server that records every line of stdout and stderr."""

    process: "subprocess.Popen[bytes]"
    raw: list[bytes] = field(default_factory=list)

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.raw]

    def of(self, event: str, **fields: Any) -> list[dict[str, Any]]:
        lines = [line for line in self.lines if line["event"] == event]
        return [line for line in lines if all(line.get(name) == value for name, value in fields.items())]

    def awaited(self, event: str, **fields: Any) -> dict[str, Any]:
        deadline = time.monotonic() + 60
        while not (found := self.of(event, **fields)):
            assert time.monotonic() < deadline, self.raw
            time.sleep(0.05)
        return found[0]

    def ask(self, method: str, address: str, id: str = "", **fields: Any) -> httpx.Response:
        headers = {"Authorization": f"Bearer {KEY}", "X-Request-ID": id}
        return httpx.request(method, self.url + address, headers=headers, timeout=30, trust_env=False, **fields)

    @property
    def url(self) -> str:
        return str(self.of("server.ready")[0]["url"])


@contextmanager
def talking(*arguments: str, home: Path, **settings: Any) -> Iterator[Talker]:
    """Both streams share one pipe."""
    process = subprocess.Popen(
        [sys.executable, "-m", "millm", *arguments, "--port", "0"],
        env=environment(home, log_format="json", api_key=KEY, testing_faults=1, **settings),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    talker = Talker(process)
    assert process.stdout
    reader = threading.Thread(target=lambda: talker.raw.extend(process.stdout or ()), daemon=True)
    reader.start()
    try:
        yield talker
    finally:
        process.terminate()
        process.wait(20)
        reader.join(20)
        process.stdout.close()


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, tiny_sae: Path) -> Talker:
    """The lines of a server from start to stop."""
    home = tmp_path_factory.mktemp("home")
    with talking("serve", str(tiny_model), "--sae", str(tiny_sae), home=home) as talker:
        talker.awaited("server.ready")
        a_days_requests(talker)
        the_engine_dies(talker)
    return talker


def a_days_requests(talker: Talker) -> None:
    assert talker.ask("POST", "/v1/completions", "good-1", json=ASKED).status_code == 200
    assert talker.ask("POST", "/v1/completions", "streamed-1", json=ASKED | {"stream": True}).status_code == 200
    assert talker.ask("POST", "/v1/completions", "bad-1", json=ASKED | {"prompt": 5}).status_code == 400
    assert talker.ask("GET", "/v1/models/nothing-like-it").status_code == 404
    assert talker.ask("GET", f"/nowhere/{TOKEN}?key={KEY}", "nowhere-1").status_code == 404
    assert talker.ask("GET", "/healthz", "health-1").status_code == 200
    assert talker.ask("GET", "/metrics", "metrics-1").status_code == 200
    assert talker.ask("GET", "/api/status", "look-1").status_code == 200
    strange = talker.ask("GET", "/v1/models", "a" * 65)
    assert re.fullmatch("req_[0-9a-f]{32}", strange.headers["x-request-id"])
    with connect(
        talker.url.replace("http", "ws") + "/api/events",
        proxy=None,
        additional_headers={"Authorization": f"Bearer {KEY}", "X-Request-ID": "socket-1"},
    ):
        pass
    talker.awaited("request.ended", request_id="socket-1")


def the_engine_dies(talker: Talker) -> None:
    """Crash the engine during an answer; SIGABRT triggers the C library's handlers."""
    children = psutil.Process(talker.process.pid).children()
    (engine,) = [child for child in children if "multiprocessing.spawn" in " ".join(child.cmdline())]
    engine.suspend()
    answers: list[httpx.Response] = []
    asking = threading.Thread(
        target=lambda: answers.append(talker.ask("POST", "/v1/completions", "crash-1", json=ASKED))
    )
    asking.start()
    while talker.ask("GET", "/api/status").json()["in_flight"] == 0:
        time.sleep(0.05)
    os.kill(engine.pid, signal.SIGABRT)
    engine.resume()
    asking.join(30)
    assert (answers[0].status_code, answers[0].json()["error"]["code"]) == (503, "engine_crashed")
    talker.awaited("engine.restored")


def test_every_line_is_json_with_time_level_event(told: Talker) -> None:
    assert len(told.lines) > 10
    for line in told.lines:
        assert list(line)[:3] == ["timestamp", "level", "event"]
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z", line["timestamp"])
        assert line["level"] in ("debug", "info", "warning", "error", "critical")


def test_server_lifecycle_is_logged(told: Talker) -> None:
    (ready,) = told.of("server.ready")
    assert (ready["model"], ready["saes"]) == ("tiny-llama", ["tiny"])
    events = [line["event"] for line in told.lines]
    assert {"server.stage", "engine.runner", "engine.died", "engine.restored"} <= set(events)
    assert events[-2:] == ["server.stopping", "server.stopped"]
    assert not told.of("printed")


def test_requests_are_logged_once_with_id_and_route(told: Talker) -> None:
    (good,) = told.of("request.ended", request_id="good-1")
    assert (good["method"], good["route"], good["status"], good["level"]) == ("POST", "/v1/completions", 200, "info")
    assert (good["completion_tokens"], good["end"]) == (7, "length")
    assert good["prompt_tokens"] > 0
    assert good["ms"] >= good["first_token_ms"] > 0
    (streamed,) = told.of("request.ended", request_id="streamed-1")
    assert (streamed["status"], streamed["completion_tokens"]) == (200, 7)
    (bad,) = told.of("request.ended", request_id="bad-1")
    assert (bad["status"], bad["level"]) == (400, "info")
    (crashed,) = told.of("request.ended", request_id="crash-1")
    assert (crashed["status"], crashed["level"], crashed["end"]) == (503, "warning", "failed")
    (socket,) = told.of("request.ended", request_id="socket-1")
    assert (socket["method"], socket["route"], socket["status"]) == ("WEBSOCKET", "/api/events", 101)
    assert told.of("request.ended", route="/v1/models/{model}", status=404)


def test_health_checks_and_reads_are_not_logged(told: Talker) -> None:
    ids = {line.get("request_id") for line in told.lines}
    assert not ids & {"health-1", "metrics-1", "look-1"}


def test_no_secrets_and_no_prompts_in_the_log(told: Talker) -> None:
    (nowhere,) = told.of("request.ended", request_id="nowhere-1")
    assert (nowhere["route"], nowhere["status"]) == (None, 404)
    text = b"".join(told.raw)
    assert TOKEN.encode() not in text
    assert KEY.encode() not in text
    assert b"nothing-like-it" not in text


def test_failed_start_is_one_line(tmp_path: Path, tiny_model: Path) -> None:
    with talking("serve", str(tiny_model), "--host", "203.0.113.7", home=tmp_path) as talker:
        assert talker.process.wait(30) == 1
    (line,) = talker.lines
    assert (line["event"], line["level"], line["code"]) == ("server.cannot_start", "error", "cannot_start")
    assert "203.0.113.7" in line["reason"]


SCRIPT = f"""
import ctypes, gc, logging, os, subprocess, sys, threading, warnings
from millm import logs
from millm.settings import Settings

class Broken:
    def __del__(self):
        raise ValueError("in a finaliser")

with logs.server_logging(Settings(log_format="json", api_key={KEY!r})):
    print("to stdout with {TOKEN}")
    sys.stderr.write("\\x1b[31mred\\x1b[0m\\rhalf a line\\n\\nand \\xff")
    sys.stderr.flush()
    os.write(2, b"\\nfrom C\\n")
    ctypes.CDLL(None).puts(b"from the C library")
    ctypes.CDLL(None).fflush(None)
    subprocess.run([sys.executable, "-c", "import sys; print('a child'); sys.exit('its last words')"])
    warnings.warn("mind the gap")
    logging.getLogger("uvicorn.error").error("a library")
    failing = threading.Thread(target=lambda: 1 / 0)
    failing.start(); failing.join()
    Broken(); gc.collect()
    try:
        raise KeyError({KEY!r})
    except KeyError:
        sys.excepthook(*sys.exc_info())
print("after it")
"""


def test_other_output_is_logged() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    assert done.stdout == "after it\n"
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    printed = [line["text"] for line in lines if line["event"] == "printed"]
    assert printed == [
        "to stdout with [redacted]", "red", "half a line", "and ÿ", "from C", "from the C library",
        "a child", "its last words",
    ]  # fmt: skip
    others = {line["event"]: line for line in lines if line["event"] != "printed"}
    assert {"a library", "thread.crashed", "process.unraisable", "process.crashed"} <= set(others)
    assert any("UserWarning: mind the gap" in event for event in others)
    assert "ZeroDivisionError" in others["thread.crashed"]["exception"]
    assert "in a finaliser" in others["process.unraisable"]["exception"]
    assert others["process.crashed"]["exception"].endswith("KeyError: '[redacted]'")
