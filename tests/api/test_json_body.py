"""JSON bodies that are too deep, too long or have huge numbers are rejected cheaply and by name."""

import json
import subprocess
import sys
import textwrap
from typing import Any

import pytest
from fastapi.testclient import TestClient
from pydantic import BaseModel

from millm.api.app import create_app
from millm.api.json_body import MAX_CONTAINERS, MAX_DEPTH, MAX_KEYS
from millm.protocol.request import ChatRequest, CompletionRequest
from tests.fixtures.bare import bare_state

CHAT: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
LET_THROUGH = 503
"""The status without a model."""


@pytest.fixture(scope="module", name="client")
def make_client() -> TestClient:
    return without_a_model()


def without_a_model() -> TestClient:
    app = create_app(bare_state())
    return TestClient(app, base_url="http://localhost", raise_server_exceptions=False)


def nested(levels: int) -> Any:
    value: Any = 1
    for level in range(levels):
        value = [value] if level % 2 else {"a": value}
    return value


@pytest.mark.parametrize(
    ("value", "result"),
    [
        (nested(MAX_DEPTH - 1), None),
        (nested(MAX_DEPTH), "64 levels"),
        (nested(300), "64 levels"),
        (dict.fromkeys(map(str, range(MAX_KEYS)), 1), None),
        (dict.fromkeys(map(str, range(MAX_KEYS + 1)), 1), "4,096 keys"),
        ([[]] * (MAX_CONTAINERS - 4), None),
        ([[]] * MAX_CONTAINERS, "65,536 lists"),
    ],
)
def test_nesting_and_size_limits(client: TestClient, value: Any, result: str | None) -> None:
    answer = client.post("/v1/chat/completions", json=CHAT | {"unknown": value})
    assert answer.status_code == (400 if result else LET_THROUGH), answer.text
    assert result is None or result in answer.json()["error"]["message"]


def numbers(model: type[BaseModel]) -> list[str]:
    """The fields that take a number."""
    found = []
    for name, field in model.model_json_schema()["properties"].items():
        kinds = {field.get("type"), *(choice.get("type") for choice in field.get("anyOf", ()))}
        if kinds & {"integer", "number"}:
            found.append(name)
    return found


@pytest.mark.parametrize("value", [2**63, -(2**63) - 1, 2**64, 10**300, 10**4000, 1e308])
@pytest.mark.parametrize(
    ("path", "name"),
    [("chat/completions", name) for name in numbers(ChatRequest)]
    + [("completions", name) for name in numbers(CompletionRequest)],
)
def test_huge_numbers_are_rejected(client: TestClient, path: str, name: str, value: float) -> None:
    """Except limits on the answer's length, which the context bounds."""
    answer = client.post(f"/v1/{path}", json=CHAT | {"prompt": "x"} | {name: value})
    if name.startswith("max_") and isinstance(value, int) and value > 0:
        assert answer.status_code == LET_THROUGH
    else:
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, name)


WRONG = {
    "messages": ("1", '"messages": %s'),
    "objects": ("{}", '"messages": %s'),
    "content": ("1", '"messages": [{"role": "user", "content": %s}]'),
    "tools": ("1", '"messages": [{"role": "user", "content": "hi"}], "tools": %s'),
    "stop": ("1", '"messages": [{"role": "user", "content": "hi"}], "stop": %s'),
    "features": ("1", '"messages": [{"role": "user", "content": "hi"}], "steering": {"features": %s}'),
    "watched": ('""', '"messages": [{"role": "user", "content": "hi"}], "activations": {"features": %s}'),
}
"""Invalid items and the field they repeat in."""

MEASURE = textwrap.dedent("""
    import json, resource, time
    from tests.api.test_json_body import WRONG, without_a_model
    client, results = without_a_model(), {}
    for name, (item, around) in WRONG.items():
        body = '{"model": "m", %s}' % around % ("[" + ",".join([item] * ((2**22 - 300) // (len(item) + 1))) + "]")
        before, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
        answer = client.post("/v1/chat/completions", content=body.encode())
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
        results[name] = [answer.status_code, grown, time.process_time() - started, len(answer.content)]
    print(json.dumps(results))
""")


@pytest.fixture(scope="module")
def measured() -> dict[str, list[float]]:
    """Status, MiB, seconds of CPU and bytes of the answer, in a process of its own."""
    done = subprocess.run([sys.executable, "-c", MEASURE], capture_output=True, text=True, check=True)
    return dict(json.loads(done.stdout.splitlines()[-1]))  # behind the lines of the log


@pytest.mark.parametrize("name", WRONG)
def test_two_million_invalid_items_cost_little(measured: dict[str, list[float]], name: str) -> None:
    """Without fail-fast pydantic needs 2.6 GB and 47 s."""
    status, megabytes, seconds, result = measured[name]
    assert status == 400
    assert megabytes < 160
    assert seconds < 3
    assert result < 500
