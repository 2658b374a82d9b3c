"""Every header rule on HTTP and websockets at a real server: an accepted and a rejected request each."""

import json

import pytest

from tests.api.conftest import Walled
from tests.api.raw_http import exchange, handshake, request
from tests.fixtures.process import Server

EVIL = "Origin: http://evil.example"


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1:1234", "[::1]", "box.local:80"])
def test_own_host_names_are_accepted(server: Server, host: str) -> None:
    assert exchange(server.url, request("GET /healthz", host=host)).status == 200


@pytest.mark.parametrize("path", ["/healthz", "/v1/models", "/api/status", "/", "/nowhere", "http://localhost/healthz"])
def test_foreign_host_is_rejected_on_any_path(server: Server, path: str) -> None:
    answer = exchange(server.url, request(f"GET {path}", host="evil.example:8000"))
    assert (answer.status, answer.error["code"]) == (421, "host_not_allowed")
    assert "MILLM_ALLOWED_HOSTS" in answer.error["message"]


@pytest.mark.parametrize("host", ["", "a b", "user@localhost", "evil.example@localhost"])
def test_invalid_host_is_rejected(server: Server, host: str) -> None:
    assert exchange(server.url, request("GET /healthz", host=host)).status in (400, 421)


def test_missing_or_repeated_host_is_rejected(server: Server) -> None:
    two = exchange(server.url, request("GET /healthz", "Host: evil.example"))
    none = exchange(server.url, request("GET /healthz", host=None))
    ancient = exchange(server.url, b"GET /healthz HTTP/1.0\r\n\r\n")
    assert (two.status, none.status, ancient.status) == (400, 400, 421)
    assert ancient.error["code"] == "host_not_allowed"


def test_configured_host_is_accepted(walled: Walled) -> None:
    url = walled(allowed_hosts="millm,*.lan")
    requested = {
        name: exchange(url, request("GET /healthz", host=name)).status for name in ("millm", "a.lan", "b.example")
    }
    assert requested == {"millm": 200, "a.lan": 200, "b.example": 421}


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "file://", "https://localhost.evil.example"])
def test_foreign_origin_is_rejected(server: Server, origin: str) -> None:
    body = b'{"features": [{"index": 1, "strength": 50}]}'
    length = f"Content-Length: {len(body)}"
    put = exchange(server.url, request("PUT /api/steering", f"Origin: {origin}", length, body=body))
    assert (put.status, put.error["code"]) == (403, "origin_not_allowed")
    assert "access-control-allow-origin" not in put.headers
    assert json.loads(exchange(server.url, request("GET /api/steering")).body)["steering"] is None
    assert exchange(server.url, request("GET /healthz", f"Origin: {origin}")).status == 403


@pytest.mark.parametrize("origin", ["http://localhost:3000", "http://127.0.0.1:5173"])
def test_loopback_origin_gets_cors_headers(server: Server, origin: str) -> None:
    for path, status in (("/v1/models", 200), ("/v1/models/nope", 404)):
        answer = exchange(server.url, request(f"GET {path}", f"Origin: {origin}"))
        assert answer.status == status
        assert answer.headers["access-control-allow-origin"] == origin
        assert "x-request-id" in answer.headers["access-control-expose-headers"]
        assert "access-control-allow-credentials" not in answer.headers
        assert answer.headers["vary"] == "Origin"


def test_configured_origin_is_accepted(walled: Walled) -> None:
    url = walled(allowed_origins="http://chat.lan:3000")
    for origin, status in (("http://chat.lan:3000", 200), ("http://chat.lan", 403)):
        assert exchange(url, request("GET /healthz", f"Origin: {origin}")).status == status


def test_preflight_is_answered_by_the_middleware(server: Server) -> None:
    requested = ("Access-Control-Request-Method: POST", "Access-Control-Request-Headers: x-stainless-os")
    answer = exchange(server.url, request("OPTIONS /v1/chat/completions", "Origin: http://localhost:3000", *requested))
    assert (answer.status, answer.body) == (204, b"")
    assert answer.headers["access-control-allow-origin"] == "http://localhost:3000"
    allowed = answer.headers["access-control-allow-headers"].split(", ")
    assert {"authorization", "content-type", "x-stainless-os", "x-millm-profile"} <= set(allowed)
    foreign = exchange(server.url, request("OPTIONS /v1/chat/completions", EVIL, *requested))
    assert foreign.status == 403
    assert not [name for name in foreign.headers if name.startswith("access-control")]


@pytest.mark.parametrize(
    ("line", "site", "mode", "status"),
    [
        ("GET /v1/models", "cross-site", "no-cors", 403),
        ("GET /api/status", "same-site", "cors", 403),
        ("HEAD /v1/models", "cross-site", "no-cors", 403),
        ("GET /v1/models", "cross-site", "navigate", 200),
        ("GET /v1/models", "same-origin", "cors", 200),
        ("GET /v1/models", "none", "navigate", 200),
        ("GET /", "cross-site", "no-cors", 200),
        ("PUT /api/steering", "cross-site", "navigate", 403),
        ("POST /v1/completions", "same-site", "no-cors", 403),
        ("POST /v1/completions", "same-origin", "cors", 400),
    ],
)
def test_sec_fetch_site(server: Server, line: str, site: str, mode: str, status: int) -> None:
    sent = request(line, f"Sec-Fetch-Site: {site}", f"Sec-Fetch-Mode: {mode}", "Content-Length: 0")
    assert exchange(server.url, sent).status == status


def test_conflicting_lengths_are_rejected(server: Server) -> None:
    smuggled = b"0\r\n\r\nGET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
    sent = request("POST /v1/completions", "Content-Length: 4", "Transfer-Encoding: chunked", body=smuggled)
    answer = exchange(server.url, sent)
    assert (answer.status, answer.error["code"]) == (400, "ambiguous_length")
    assert answer.headers["connection"] == "close"
    assert answer.rest == b""
    alone = exchange(
        server.url, request("POST /v1/completions", "Transfer-Encoding: chunked", body=b"2\r\n{}\r\n0\r\n\r\n")
    )
    assert (alone.status, alone.error["param"]) == (400, "model")


def test_compressed_body_is_rejected(server: Server) -> None:
    for encoding, status in (("gzip", 415), ("identity", 400)):
        sent = request("POST /v1/completions", f"Content-Encoding: {encoding}", "Content-Length: 2", body=b"{}")
        assert exchange(server.url, sent).status == status


@pytest.mark.parametrize(
    ("host", "origin", "code"),
    [
        ("localhost", EVIL, "origin_not_allowed"),
        ("localhost", "Origin: null", "origin_not_allowed"),
        ("evil.example", "Origin: http://evil.example", "host_not_allowed"),
        ("evil.example", "X-Nothing: 1", "host_not_allowed"),
    ],
)
def test_foreign_websocket_is_rejected_before_handshake(walled: Walled, host: str, origin: str, code: str) -> None:
    answer = exchange(walled(), handshake("/echo", origin, host=host))
    assert answer.status in (403, 421)
    assert answer.error["code"] == code
    assert answer.headers["x-request-id"]


@pytest.mark.parametrize("origin", ["X-Nothing: 1", "Origin: http://localhost:3000"])
def test_own_websocket_is_accepted(walled: Walled, origin: str) -> None:
    assert exchange(walled(), handshake("/echo", origin)).status == 101
