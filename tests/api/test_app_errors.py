"""Error responses of any route: the format, the request id, and no internals or client data."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator

import pytest
import structlog
from fastapi import FastAPI, Request
from pydantic import BaseModel
from starlette.responses import StreamingResponse
from starlette.testclient import TestClient
from structlog.testing import capture_logs

from millm.api.app import install_error_handlers
from millm.api.middleware import DEFAULT_MAX_BODY_BYTES
from millm.errors import ERRORS_BY_CODE, EngineFailed, QueueFull, Unavailable


class Knob(BaseModel):
    value: int


app = FastAPI()
install_error_handlers(app)


@app.get("/raise/{code}")
async def raise_known(code: str) -> None:
    raise ERRORS_BY_CODE[code]("the knob is stuck; turn it back", param="knob")


@app.get("/bug")
async def bug() -> None:
    raise ZeroDivisionError("/home/somebody/secret")


@app.get("/bug-in-a-stream")
async def bug_in_a_stream() -> StreamingResponse:
    async def body() -> AsyncIterator[bytes]:
        yield b"half"
        raise ZeroDivisionError

    return StreamingResponse(body())


@app.post("/knobs/{number}")
async def knobs(number: int, knob: Knob, level: int = 0) -> dict[str, int]:
    return {"value": knob.value}


class Closed(BaseModel, extra="forbid"):
    """A body without fields."""


@app.post("/closed")
async def closed(body: Closed) -> None:
    return None


@app.post("/size")
async def size(request: Request) -> dict[str, int]:
    return {"size": len(await request.body())}


@pytest.fixture
def client() -> Iterator[TestClient]:
    with TestClient(app, raise_server_exceptions=False) as client:
        yield client


@pytest.mark.parametrize("code", sorted(ERRORS_BY_CODE))
def test_millm_errors_map_to_status_type_and_code(client, code) -> None:
    answer = client.get(f"/raise/{code}")
    kind = ERRORS_BY_CODE[code]
    assert answer.status_code == kind.status
    assert answer.json() == {
        "error": {"message": "the knob is stuck; turn it back", "type": kind.type, "param": "knob", "code": code}
    }


def test_retry_headers(client) -> None:
    full = client.get(f"/raise/{QueueFull.code}")
    assert int(full.headers["retry-after"]) == Unavailable.retry_after_seconds
    assert "x-should-retry" not in full.headers
    assert client.get(f"/raise/{EngineFailed.code}").headers["x-should-retry"] == "false"


def test_unexpected_error_is_logged_and_hidden_from_client(client) -> None:
    with capture_logs([structlog.contextvars.merge_contextvars]) as logged:
        answer = client.get("/bug")
    assert answer.status_code == 500
    assert answer.json()["error"]["type"] == "server_error"
    assert answer.json()["error"]["code"] == "internal_error"
    assert "secret" not in answer.text
    assert "ZeroDivisionError" not in answer.text
    assert [(line["event"], line["request_id"]) for line in logged] == [
        ("request.failed", answer.headers["x-request-id"]),
        ("request.ended", answer.headers["x-request-id"]),
    ]
    assert logged[0]["exc_info"]


def test_error_after_first_byte_closes_the_connection(client) -> None:
    loud = TestClient(app, raise_server_exceptions=True)
    with capture_logs(), pytest.raises(ZeroDivisionError):
        loud.get("/bug-in-a-stream")


@pytest.mark.parametrize(
    ("path", "body", "param", "message"),
    [
        ("/knobs/1", {"value": "Zanzibar"}, "value", "`value` should be a valid integer"),
        ("/knobs/1", {}, "value", "`value` is required."),
        ("/knobs/1", [], None, "The body must be a JSON object."),
        ("/knobs/Zanzibar", {"value": 1}, "number", "`number` should be a valid integer"),
        ("/knobs/1?level=Zanzibar", {"value": 1}, "level", "`level` should be a valid integer"),
    ],
)
def test_validation_errors_are_400_on_any_route(client, path, body, param, message) -> None:
    answer = client.post(path, json=body)
    error = answer.json()["error"]
    assert (answer.status_code, error["param"], error["code"]) == (400, param, "invalid_value")
    assert error["message"].startswith(message)
    assert "Zanzibar" not in answer.text


def test_invalid_json_is_rejected_on_ordinary_routes(client) -> None:
    answer = client.post("/knobs/1", content=b"{", headers={"content-type": "application/json"})
    assert answer.status_code == 400
    assert answer.json()["error"]["message"].startswith("The body is not valid JSON")


def test_long_client_key_does_not_inflate_the_error(client) -> None:
    answer = client.post("/closed", json={"k" * 100_000: 1})
    assert answer.status_code == 400
    assert len(answer.content) < 500


def test_unknown_addresses_and_methods_are_rejected(client) -> None:
    missing = client.get("/nowhere")
    assert (missing.status_code, missing.json()["error"]["code"]) == (404, "not_found")
    failure = client.delete("/size")
    assert (failure.status_code, failure.json()["error"]["code"]) == (405, "method_not_supported")
    assert failure.headers["allow"] == "POST"
    for answer in (missing, failure):
        assert set(answer.json()["error"]) == {"message", "type", "param", "code"}


@pytest.mark.parametrize(
    ("sent", "stored"),
    [("abc-1_2", True), ("x" * 64, True), ("x" * 65, False), ("", False), ("a b", False), ("a.b", False), ("é", False)],
)
def test_every_response_has_a_request_id(client, sent, stored) -> None:
    headers = {b"x-request-id": sent.encode("latin-1")}
    with capture_logs():
        answers = [client.get("/nowhere", headers=headers), client.get("/bug", headers=headers)]
    answers.append(client.post("/size", content=b"abc", headers=headers))
    ids = [answer.headers["x-request-id"] for answer in answers]
    if stored:
        assert ids == [sent] * 3
    else:
        assert len(set(ids)) == 3
        assert all(request_id.startswith("req_") and len(request_id) == 36 for request_id in ids)


def test_body_limit_is_inclusive(client) -> None:
    assert client.post("/size", content=b"x" * DEFAULT_MAX_BODY_BYTES).json() == {"size": DEFAULT_MAX_BODY_BYTES}
    declared = client.post("/size", content=b"x" * (DEFAULT_MAX_BODY_BYTES + 1))
    undeclared = client.post("/size", content=(b"x" * 2**20 for _ in range(17)))
    for answer in (declared, undeclared):
        assert answer.status_code == 413
        assert answer.json()["error"]["code"] == "request_too_large"
        assert answer.headers["x-request-id"]


def test_oversized_declared_body_is_rejected_unread() -> None:
    sent = []

    async def receive() -> dict[str, object]:
        raise AssertionError("nobody should have read the body")

    async def send(message: dict[str, object]) -> None:
        sent.append(message)

    scope = {
        "type": "http", "method": "POST", "path": "/size", "query_string": b"", "root_path": "",
        "headers": [(b"content-length", str(10**30).encode())],
    }  # fmt: skip
    asyncio.run(app(scope, receive, send))
    assert sent[0]["status"] == 413
    assert json.loads(sent[1]["body"])["error"]["code"] == "request_too_large"
