"""Every response of a real server: headers, request id, error format, no internals."""

import re
from pathlib import Path

import pytest

import millm
from tests.api.raw_http import Answer, exchange, handshake, request
from tests.fixtures.process import Server

TELLS = re.compile(rb"Traceback|File \"|/site-packages/|\.py\b|0x[0-9a-f]{6,}|[A-Za-z]+Error\(")
"""A trace, a path, an address in memory, an exception."""


def body(text: bytes, *headers: str, line: str = "POST /v1/chat/completions") -> bytes:
    return request(line, f"Content-Length: {len(text)}", "Content-Type: application/json", *headers, body=text)


ASKED = {
    "the start page": request("GET /"),
    "health": request("GET /healthz"),
    "models": request("GET /v1/models"),
    "status": request("GET /api/status"),
    "the OpenAPI document": request("GET /openapi.json"),
    "an answer": body(b'{"model": "tiny-llama", "messages": [{"role": "user", "content": "x"}], "max_tokens": 1}'),
    "nowhere": request("GET /nowhere"),
    "the docs that loaded a CDN": request("GET /docs"),
    "a slash too many": request("GET /v1/models/?x=1"),
    "a path upwards": request("GET /../../etc/passwd"),
    "a path with a null": request("GET /%00/%ff"),
    "a method that is not taken": request("DELETE /v1/models"),
    "an unknown method": request("BREW /healthz"),
    "options without a page": request("OPTIONS /v1/models"),
    "a foreign page": request("GET /healthz", "Origin: http://evil.example"),
    "a foreign name": request("GET /healthz", host="evil.example"),
    "no JSON": body(b"{"),
    "a bad field": body(b'{"model": "tiny-llama", "messages": 5}'),
    "NaN": body(b'{"model": "tiny-llama", "temperature": NaN}'),
    "half a surrogate pair": body(b'{"model": "\\ud800"}'),
    "a number without end": body(b'{"model": "tiny-llama", "n": ' + b"9" * 10_000 + b"}"),
    "too deep": body(b"[" * 5000 + b"]" * 5000),
    "an unknown model": body(b'{"model": "/etc/passwd", "messages": [{"role": "user", "content": "x"}]}'),
    "a steering that does not fit": body(b'{"features": [{"index": 99999999999}]}', line="PUT /api/steering"),
    "too large": request("POST /v1/completions", "Content-Length: 999999999"),
    "a ticket": request("POST /api/ws-ticket", "Content-Length: 0"),
    "a websocket of a foreign page": handshake("/api/nowhere", "Origin: null"),
}


@pytest.fixture(scope="module")
def answers(server: Server) -> dict[str, Answer]:
    return {name: exchange(server.url, sent) for name, sent in ASKED.items()}


@pytest.mark.parametrize("name", ASKED)
def test_responses_reveal_no_internals(answers: dict[str, Answer], name: str) -> None:
    answer = answers[name]
    assert not TELLS.search(answer.body)
    for path in (str(Path(millm.__file__).parent), str(Path.home()), "/tmp/"):
        assert path.encode() not in answer.body
    assert "server" not in answer.headers
    assert answer.status < 500


@pytest.mark.parametrize("name", ASKED)
def test_security_headers(answers: dict[str, Answer], name: str) -> None:
    headers = answers[name].headers
    assert re.fullmatch(r"req_[0-9a-f]{32}", headers["x-request-id"])
    assert "frame-ancestors 'none'" in headers["content-security-policy"]
    assert "unsafe" not in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["cross-origin-resource-policy"] == "same-origin"


@pytest.mark.parametrize("name", ASKED)
def test_failures_have_the_error_format(answers: dict[str, Answer], name: str) -> None:
    if answers[name].status >= 400 and answers[name].body:
        assert answers[name].error["message"]


@pytest.mark.parametrize(
    ("name", "status"),
    [("a slash too many", 404), ("the docs that loaded a CDN", 404), ("too deep", 400), ("too large", 413),
     ("a number without end", 400), ("an unknown method", 405), ("options without a page", 405), ("a ticket", 200)],
)  # fmt: skip
def test_status_codes(answers: dict[str, Answer], name: str, status: int) -> None:
    assert answers[name].status == status


def test_body_limit_is_named(answers: dict[str, Answer]) -> None:
    assert "4,194,304 bytes (MILLM_MAX_BODY_BYTES)" in answers["too large"].error["message"]
    assert "64 levels" in answers["too deep"].error["message"]


def test_405_lists_all_methods_of_the_address(server: Server) -> None:
    taken = {
        "/api/steering": "GET, HEAD, PATCH, PUT",
        "/v1/models": "GET, HEAD",
        "/v1/chat/completions": "POST",
        "/healthz": "GET, HEAD",
    }
    for path, methods in taken.items():
        answer = exchange(server.url, request(f"DELETE {path}"))
        assert (answer.status, answer.headers["allow"]) == (405, methods)


@pytest.mark.parametrize(
    "path", ["/", "/healthz", "/v1/models", "/api/status", "/v1/models/tiny-llama", "/openapi.json"]
)
def test_head_equals_get_without_body(server: Server, path: str) -> None:
    head, get = (exchange(server.url, request(f"{method} {path}", "Connection: close")) for method in ("HEAD", "GET"))
    assert (head.status, head.body) == (get.status, b"") == (200, b"")
    assert head.headers["content-length"] == get.headers["content-length"]


@pytest.mark.parametrize(("sent", "is_kept"), [("abc-1_2", True), ("x" * 64, True), ("x" * 65, False), ("a b", False)])
def test_client_request_id_is_returned(server: Server, sent: str, is_kept: bool) -> None:
    answer = exchange(server.url, request("GET /healthz", f"X-Request-Id: {sent}"))
    assert (answer.headers["x-request-id"] == sent) is is_kept
