"""Thousands of generated requests: no 5xx, no answer outside the envelope, no closed connection, no growing memory."""

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any

import httpx
import psutil
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode

from tests.fixtures.process import Server, running
from tests.fixtures.tiny import write_profiles
from tests.fuzz.bodies import BODIES
from tests.fuzz.mutations import spoiled

pytestmark = [pytest.mark.fuzz, pytest.mark.timeout(1800)]

CASES = 5000
LONGEST_QUERY = 16_000
"""Characters: beyond the limit on all headers a connection is closed, which `tests/guard` looks at."""
FROM_SCHEMA = 90
"""Examples for each operation and each of: requests that fit the document, requests that do not."""
GROWTH = 24 * 2**20
"""Bytes that the server may have grown by after a thousand requests, when its caches are full."""


@pytest.fixture(scope="module")
def fuzzed(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, tiny_sae: Path) -> Iterator[Server]:
    """A server of its own: some of these requests change what steers it. Short answers: there are thousands."""
    home = tmp_path_factory.mktemp("fuzz-home")
    write_profiles(home / "profiles")
    arguments = ("serve", str(tiny_model), "--sae", str(tiny_sae))
    with running(*arguments, model="tiny-llama", home=home, default_max_tokens=4) as server:
        yield server


@pytest.fixture(scope="module")
def http(fuzzed: Server) -> Iterator[httpx.Client]:
    """One connection, kept alive: what kills it fails the next request."""
    with httpx.Client(base_url=fuzzed.url, timeout=120, limits=httpx.Limits(max_connections=1)) as client:
        yield client


def check(answer: httpx.Response, home: Path) -> int:
    """Check that the answer is well-formed; returns its status."""
    text = answer.text
    assert answer.status_code < 500, (answer.status_code, text[:400], answer.request.content[:2000])
    assert answer.headers.get("x-request-id")
    assert "Traceback" not in text
    assert str(home) not in text
    assert str(Path(__file__).parents[2]) not in text
    if answer.status_code >= 400:
        assert_envelope(answer, text)
    return answer.status_code


def assert_envelope(answer: httpx.Response, text: str) -> None:
    error = json.loads(text)["error"]
    assert error.keys() == {"message", "type", "param", "code"}, text[:400]
    assert error["message"]
    assert isinstance(error["message"], str)
    assert isinstance(error["type"], str)
    assert error["param"] is None or isinstance(error["param"], str)
    assert error["code"] is None or isinstance(error["code"], str)
    assert len(text) < 4000, "an error does not give back what was sent"


def resident(server: Server) -> int:
    """Bytes of the process that answers HTTP."""
    return int(psutil.Process(server.process.pid).memory_info().rss)


def test_mutated_bodies(fuzzed: Server, http: httpx.Client) -> None:
    random = Random(20261123)
    seen: Counter[int] = Counter()
    settled = 0
    for number in range(CASES):
        path, body = BODIES[number % len(BODIES)]
        content = spoiled(body, random)
        answer = http.post(path, content=content, headers={"Content-Type": "application/json"})
        seen[check(answer, fuzzed.home)] += 1
        if number == CASES // 5:
            settled = resident(fuzzed)
    assert sum(seen.values()) == CASES
    assert seen[200] > CASES / 20, f"too few of them were good requests: {seen}"
    assert seen[400] > CASES / 4, f"too few of them were bad requests: {seen}"
    assert resident(fuzzed) - settled < GROWTH, (settled, resident(fuzzed))


def test_requests_generated_from_openapi(fuzzed: Server, http: httpx.Client) -> None:
    document = schemathesis.openapi.from_url(f"{fuzzed.url}/openapi.json")
    operations = [result.ok() for result in document.get_all_operations() if _leaves_the_model(result.ok())]
    seen: Counter[int] = Counter()
    while sum(seen.values()) < CASES:
        for operation in operations:
            for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):
                seen += run_operation(operation, mode, fuzzed, http, round_=sum(seen.values()))
    assert seen[200] > CASES / 20, seen
    assert seen[400] + seen[422] > CASES / 20, seen


def run_operation(
    operation: Any, mode: GenerationMode, server: Server, http: httpx.Client, round_: int
) -> Counter[int]:
    """Up to FROM_SCHEMA requests of one operation."""
    seen: Counter[int] = Counter()

    @seed(round_)
    @settings(
        max_examples=FROM_SCHEMA,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(generation_mode=mode))
    def check_case(case: Any) -> None:
        _make_it_reach_the_model(case, server.model)
        request = case.as_transport_kwargs(base_url=server.url)
        parameters = httpx.QueryParams(request.get("params"))
        if len(str(parameters)) > LONGEST_QUERY:
            return
        answer = http.request(
            request["method"], request["url"], params=parameters, headers=dict(request.get("headers") or {}),
            json=request.get("json"), content=request.get("data"),
        )  # fmt: skip
        seen[check(answer, server.home)] += 1

    with suppress(Unsatisfiable):  # what takes nothing cannot be asked wrongly
        check_case()
    return seen


def _leaves_the_model(operation: Any) -> bool:
    """Excluded are unloading and Hugging Face, which have tests of their own (`tests/api/admin`)."""
    changes = ("/api/models", "/api/saes", "/api/attachments", "/api/jobs")
    return operation.method.upper() == "GET" or not operation.path.startswith(changes)


def _make_it_reach_the_model(case: Any, model: str) -> None:
    """With a generated model name, only the name would be tested."""
    if isinstance(case.body, dict) and isinstance(case.body.get("model"), str) and len(case.body["model"]) % 4:
        case.body["model"] = model
        for name in ("n", "best_of"):
            if isinstance(case.body.get(name), int):
                case.body[name] = min(case.body[name], 3)
