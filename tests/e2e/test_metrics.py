"""`/metrics` of a real server against the counts of its clients."""

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from millm.api.metrics import GAUGES, STATUSES
from millm.errors import ERRORS_BY_CODE
from tests.e2e.metrics_text import Metrics
from tests.fixtures.process import Server, running

ASKED = {"model": "tiny-llama", "prompt": "The sea is wide", "temperature": 0.9, "ignore_eos": True}
STREAMS = 12
ENDS = {"stop", "length", "tool_calls", "embedded", "cancelled", "failed", *ERRORS_BY_CODE}


@pytest.fixture(scope="module")
def there(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, tiny_sae: Path) -> Iterator[Server]:
    home = tmp_path_factory.mktemp("home")
    with running(
        "serve", str(tiny_model), "--sae", str(tiny_sae), model="tiny-llama", home=home, slots=2, max_queue=4
    ) as server:
        yield server


def post(server: Server, address: str = "/v1/completions", **fields: Any) -> httpx.Response:
    return httpx.post(f"{server.url}{address}", json=ASKED | fields, timeout=60, trust_env=False)


@dataclass(frozen=True)
class Streamed:
    first: float
    """Seconds until the first text, as the client sees it."""
    seconds: float
    usage: dict[str, int]


def streamed(server: Server, tokens: int) -> Streamed:
    body = ASKED | {"stream": True, "stream_options": {"include_usage": True}, "max_tokens": tokens, "n": 2}
    began, first, usage = time.monotonic(), 0.0, {}
    with httpx.stream("POST", f"{server.base_url}/completions", json=body, timeout=60, trust_env=False) as answer:
        for line in answer.iter_lines():
            if line.startswith("data: {"):
                event = json.loads(line.removeprefix("data: "))
                first = first or time.monotonic() - began
                usage = event.get("usage") or usage
    return Streamed(first, time.monotonic() - began, usage)


def test_streams_are_counted_as_by_their_clients(there: Server) -> None:
    before = Metrics.at(there.url)
    with ThreadPoolExecutor(2) as pool:
        results = list(pool.map(lambda k: streamed(there, 3 + k), range(STREAMS)))
    after = Metrics.at(there.url)
    written, read = (sum(one.usage[f"{what}_tokens"] for one in results) for what in ("completion", "prompt"))
    assert written == sum(2 * (3 + k) for k in range(STREAMS))
    assert after.since(before, "millm_generated_tokens_total") == written
    assert after.since(before, "millm_prompt_tokens_total") == read
    assert after.since(before, "millm_time_to_first_token_seconds_count") == STREAMS
    assert after.since(before, "millm_answer_seconds_count") == STREAMS
    assert after.since(before, "millm_inter_token_seconds_count") == written - 2 * STREAMS
    assert after.since(before, "millm_answers_total", endpoint="/v1/completions", end="length") == STREAMS
    labels = {"route": "/v1/completions", "method": "POST", "status": "200"}
    assert after.since(before, "millm_http_requests_total", **labels) == STREAMS
    for name, seen in (
        ("millm_time_to_first_token_seconds_sum", sum(one.first for one in results)),
        ("millm_answer_seconds_sum", sum(one.seconds for one in results)),
    ):
        assert 0.3 * seen < after.since(before, name) < seen, "the client sees the same, and the way there"


def test_requests_are_counted_by_outcome(there: Server) -> None:
    before = Metrics.at(there.url)
    usage = [post(there, max_tokens=4).json()["usage"], post(there, "/v1/embeddings", input="The sea").json()["usage"]]
    chat = post(there, "/v1/chat/completions", messages=[{"role": "user", "content": "x"}], max_tokens=2, prompt=None)
    usage.append(chat.json()["usage"])
    with httpx.stream(
        "POST", f"{there.base_url}/completions", json=ASKED | {"stream": True, "max_tokens": 200}
    ) as gone:
        next(gone.iter_bytes())
    while Metrics.at(there.url).value("millm_requests_open"):
        time.sleep(0.05)
    after = Metrics.at(there.url)
    assert after.since(before, "millm_answers_total", endpoint="/v1/completions", end="length") == 1
    assert after.since(before, "millm_answers_total", endpoint="/v1/completions", end="cancelled") == 1
    assert after.since(before, "millm_answers_total", endpoint="/v1/embeddings", end="embedded") == 1
    assert after.since(before, "millm_answers_total", endpoint="/v1/chat/completions", end="length") == 1
    assert after.since(before, "millm_prompt_tokens_total") >= sum(one["prompt_tokens"] for one in usage)
    assert after.since(before, "millm_generated_tokens_total") > sum(one.get("completion_tokens", 0) for one in usage)


def test_client_input_is_never_a_label(there: Server) -> None:
    before = Metrics.at(there.url)
    for k in range(5):
        assert post(there, model=f"made-up-{k}", max_tokens=1).status_code == 404
        assert httpx.get(f"{there.url}/made-up-{k}", trust_env=False).status_code == 404
        assert httpx.get(f"{there.base_url}/models/made-up-{k}", trust_env=False).status_code == 404
        assert httpx.request(f"MADEUP{k}", f"{there.url}/healthz", trust_env=False).status_code == 405
    after = Metrics.at(there.url)
    assert not [labels for name, labels in after.values if "made-up" in repr(labels).lower()]
    assert not [labels for name, labels in after.values if "madeup" in repr(labels).lower()]
    assert after.since(before, "millm_http_requests_total", route="none", method="GET", status="404") == 5
    assert after.since(before, "millm_http_requests_total", route="/healthz", method="other", status="405") == 5
    assert {labels["end"] for labels in after.labels_of("millm_answers_total")} <= ENDS
    assert len(after.values) < 250


@contextmanager
def held(server: Server) -> Iterator[None]:
    """Blocks the engine."""
    children = psutil.Process(server.process.pid).children()
    (engine,) = [child for child in children if "multiprocessing.spawn" in " ".join(child.cmdline())]
    engine.suspend()
    try:
        yield
    finally:
        engine.resume()


def test_the_queue_is_reported_while_blocked(there: Server) -> None:
    with ThreadPoolExecutor(6) as pool:
        with held(there):
            requests = [pool.submit(post, there, max_tokens=2) for _ in range(6)]
            while (now := Metrics.at(there.url)).value("millm_sequences_waiting") < 4:
                time.sleep(0.05)
            assert now.value("millm_sequences_running") == 2
            assert now.value("millm_requests_open") == 6
            assert now.value("millm_queue_limit") == 4
            full = post(there, max_tokens=2)
            assert (full.status_code, full.json()["error"]["code"]) == (503, "queue_full")
        assert [answer.result(60).status_code for answer in requests] == 6 * [200]
    after = Metrics.at(there.url)
    assert (after.value("millm_sequences_running"), after.value("millm_sequences_waiting")) == (0, 0)
    labels = {"route": "/v1/completions", "method": "POST", "status": "503"}
    assert after.value("millm_http_requests_total", **labels) >= 1


def test_loaded_model_and_steering_are_reported(there: Server) -> None:
    status = httpx.get(f"{there.url}/api/status", trust_env=False).json()
    now = Metrics.at(there.url)
    facts = status["model"]["facts"]
    (info,) = now.labels_of("millm_model_info")
    assert info == {
        "model": "tiny-llama",
        **{name: facts[name] for name in ("architecture", "device", "weights", "runner")},
    }
    assert {name: now.value("millm_status", status=name) for name in STATUSES} == {
        name: float(name == "ready") for name in STATUSES
    }
    assert now.value("millm_saes_attached") == 1
    assert now.value("millm_model_memory_bytes", part="weights") == facts["memory"]["weights"]
    assert now.value("millm_degraded") == 0
    resident = psutil.Process(there.process.pid).memory_info().rss
    assert 0.8 * resident < now.value("millm_resident_memory_bytes", process="server") < 1.2 * resident
    steering = {"features": [{"index": 3, "strength": 6}]}
    for steering_request, is_active in ((steering, 1.0), ({"features": []}, 0.0)):
        assert httpx.put(f"{there.url}/api/steering", json=steering_request, trust_env=False).status_code == 200
        assert Metrics.at(there.url).value("millm_steering_active") == is_active


def test_a_restart_of_the_engine_is_counted(there: Server) -> None:
    before = Metrics.at(there.url).value("millm_engine_restarts_total")
    children = psutil.Process(there.process.pid).children()
    (engine,) = [child for child in children if "multiprocessing.spawn" in " ".join(child.cmdline())]
    engine.kill()
    deadline = time.monotonic() + 60
    while not (now := Metrics.at(there.url)).value("millm_status", status="restarting"):
        assert time.monotonic() < deadline
    assert now.value("millm_engine_restarts_total") == before + 1
    while not Metrics.at(there.url).value("millm_status", status="ready"):
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_histograms_and_families_are_well_formed(there: Server) -> None:
    """As a scraper needs them: cumulative buckets, and a type for every family."""
    now = Metrics.at(there.url)
    for family in (name for name, kind in now.kinds.items() if kind == "histogram"):
        buckets = [value for (name, _), value in now.values.items() if name == f"{family}_bucket"]
        assert all(one <= other for one, other in pairwise(buckets))
        assert buckets[-1] == now.value(f"{family}_count") > 0
    named = {name + ("_total" if kind == "counter" else "") for name, kind in ((g.name, g.kind) for g in GAUGES)}
    assert named <= set(now.kinds)
    assert not [name for name in now.kinds if name.endswith("_created")]
