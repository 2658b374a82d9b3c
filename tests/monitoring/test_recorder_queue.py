"""`/api/queue`: open requests and their cancellation, which leaves other requests alone."""

import json
import threading
import time
from typing import Any

import httpx
import pytest
from openai import APIStatusError, OpenAI

from tests.fixtures.inside import Inside

LONG: dict[str, Any] = {"model": "tiny-llama", "prompt": "The sea", "temperature": 0, "max_tokens": 200}
WHOLE = {"ignore_eos": True}


def queue(api: httpx.Client) -> list[dict[str, Any]]:
    result: list[dict[str, Any]] = api.get("/api/queue").raise_for_status().json()["requests"]
    return result


def test_queue_is_empty_without_requests(api: httpx.Client) -> None:
    assert queue(api) == []


def test_open_stream_is_listed_until_cancelled(api: httpx.Client, inside: Inside) -> None:
    headers = {"X-Millm-Source": "long one"}
    with (
        httpx.Client(base_url=inside.url, timeout=30) as other,
        other.stream("POST", "/v1/completions", json={**LONG, **WHOLE, "stream": True}, headers=headers) as answer,
    ):
        lines = (line for line in answer.iter_lines() if line)
        first = json.loads(next(lines)[6:])
        (row,) = queue(api)
        assert (row["id"], row["client"], row["endpoint"]) == (first["id"], "long one", "/v1/completions")
        assert row["streamed"]
        assert row["seconds"] >= 0
        cancelled = api.post(f"/api/queue/{row['id']}/cancel")
        assert cancelled.raise_for_status().json()["id"] == row["id"]
        rest = list(lines)
    assert '"request_cancelled"' in "".join(rest[-2:])
    assert queue(api) == []
    remembered = api.get(f"/api/requests/{row['id']}").json()["request"]
    assert (remembered["end"], remembered["error"]) == ("failed", "request_cancelled")
    deadline = time.monotonic() + 5
    while inside.state.engine.in_flight and time.monotonic() < deadline:
        time.sleep(0.01)
    assert inside.state.engine.in_flight == 0


def test_cancelled_official_client_does_not_retry(api: httpx.Client, inside: Inside) -> None:
    """All choices of the request end; a concurrent request continues."""
    client = OpenAI(base_url=inside.base_url, api_key="-")
    refused: list[APIStatusError] = []
    answers: list[int] = []

    def ask(n: int) -> None:
        try:
            answers.append(len(client.completions.create(**LONG, n=n, extra_body=WHOLE).choices))
        except APIStatusError as error:
            refused.append(error)

    threads = [threading.Thread(target=ask, args=(n,)) for n in (3, 1)]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + 10
    while len(queue(api)) < 2 and time.monotonic() < deadline:
        time.sleep(0.005)
    (three,) = [row for row in queue(api) if row["choices"] == 3]
    api.post(f"/api/queue/{three['id']}/cancel").raise_for_status()
    for thread in threads:
        thread.join(30)
    (error,) = refused
    assert (error.status_code, error.code) == (409, "request_cancelled")
    assert answers == [1]


@pytest.mark.parametrize("id", ["nobody", "cmpl-0", "%00", "a" * 600])
def test_unknown_request_cannot_be_cancelled(api: httpx.Client, id: str) -> None:
    answer = api.post(f"/api/queue/{id}/cancel")
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "request_not_found")
