"""The socket's side, over raw sockets: too slow, too large, too many, and not HTTP at all."""

import json
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from millm.api.h11_protocol import MAX_CONNECTIONS, MAX_HEAD_BYTES
from tests.api.conftest import Walled
from tests.api.raw_http import connect, exchange, handshake, parse, request, until_silence
from tests.fixtures.inside import Inside, serving

READ_SECONDS = 0.6


@pytest.fixture
def hasty(walled: Walled) -> str:
    return walled(read_timeout=READ_SECONDS)


def closed_after(connection: socket.socket, limit: float) -> float:
    """Seconds until the server closes the connection."""
    started = time.monotonic()
    connection.settimeout(limit)
    try:
        while connection.recv(65536):
            pass
    except ConnectionResetError:
        pass
    return time.monotonic() - started


@pytest.mark.parametrize(
    "sent",
    [b"", b"GET /healthz HT", request("POST /v1/completions", "Content-Length: 100", body=b"{")],
    ids=["silence", "half a head", "half a body"],
)
def test_incomplete_request_times_out(hasty: str, sent: bytes) -> None:
    with connect(hasty) as connection:
        connection.sendall(sent)
        assert READ_SECONDS / 2 < closed_after(connection, 5) < 4


def send_slowly(connection: socket.socket, sent: bytes) -> None:
    for byte in sent:
        connection.sendall(bytes([byte]))
        time.sleep(0.05)


def test_slow_bytes_do_not_extend_the_timeout(hasty: str) -> None:
    with connect(hasty) as connection:
        started = time.monotonic()
        with pytest.raises((BrokenPipeError, ConnectionResetError)):
            send_slowly(connection, request("GET /healthz", "X-Slow: " + "x" * 200))
        assert time.monotonic() - started < 4


def test_many_slow_connections_do_not_block_others(hasty: str) -> None:
    with ExitStack() as stack:
        for _ in range(200):
            stack.enter_context(connect(hasty)).sendall(b"GET / HTTP/1.1\r\n")
        assert exchange(hasty, request("GET /healthz")).status == 200


def test_keep_alive_connection_serves_repeated_requests(hasty: str) -> None:
    with connect(hasty) as connection:
        for _ in range(3):
            connection.sendall(request("GET /healthz"))
            assert parse(until_silence(connection)).status == 200
            time.sleep(READ_SECONDS / 3)


def test_open_websocket_has_no_read_timeout(hasty: str) -> None:
    with connect(hasty) as connection:
        connection.sendall(handshake("/echo"))
        assert parse(until_silence(connection, 0.3)).status == 101
        time.sleep(2 * READ_SECONDS)
        mask, text = b"\0\0\0\0", b"still there"
        connection.sendall(b"\x81" + struct.pack("!B", 0x80 | len(text)) + mask + text)
        assert text in until_silence(connection, 1)


def test_head_size_limit(walled: Walled) -> None:
    fits = exchange(walled(), request("GET /healthz", "X-Large: " + "x" * (MAX_HEAD_BYTES - 200)))
    too_large = exchange(walled(), request("GET /healthz", "X-Large: " + "x" * 2 * MAX_HEAD_BYTES))
    many = exchange(walled(), request("GET /healthz", *(f"X-{n}: y" for n in range(5000))))
    assert fits.status == 200
    for answer in (too_large, many):
        assert answer.status == 431
        assert "32,768 bytes" in answer.error["message"]
        assert answer.headers["x-request-id"].startswith("req_")
        assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    "sent",
    [
        b"hello\r\n\r\n",
        request("GET /health z"),
        request("POST /v1/completions", "Content-Length: -1"),
        request("POST /v1/completions", "Content-Length: 1", "Content-Length: 2"),
        request("GET /healthz", "Bad Name: x"),
        request("GET /healthz", "X: a\x00b"),
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(300) + b"\r\n\r\n",
    ],
)
def test_invalid_http_gets_the_error_format(walled: Walled, sent: bytes) -> None:
    answer = exchange(walled(), sent)
    assert answer.status == 400
    assert answer.error["type"] == "invalid_request_error"
    assert answer.headers["connection"] == "close"
    assert exchange(walled(), request("GET /healthz")).status == 200


def test_unknown_transfer_encoding_and_broken_chunk_are_rejected(walled: Walled) -> None:
    unknown = exchange(walled(), request("POST /v1/completions", "Transfer-Encoding: gzip"))
    broken = exchange(walled(), request("POST /v1/completions", "Transfer-Encoding: chunked", body=b"zz\r\n"))
    assert (unknown.status, broken.status) == (501, 400)
    assert unknown.error
    assert broken.error


def test_excess_connection_is_closed_and_others_continue(walled: Walled) -> None:
    url = walled(read_timeout=60)
    with ExitStack() as stack:
        stored = [stack.enter_context(connect(url)) for _ in range(MAX_CONNECTIONS)]
        stored[0].sendall(request("GET /healthz"))
        assert parse(until_silence(stored[0])).status == 200
        assert closed_after(stack.enter_context(connect(url)), 5) < 4
        stored[-1].sendall(request("GET /healthz"))
        assert parse(until_silence(stored[-1])).status == 200
    time.sleep(0.2)
    assert exchange(url, request("GET /healthz")).status == 200


@pytest.fixture(scope="module")
def served(tiny_model: Path, tiny_sae: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Inside]:
    with serving(tiny_model, tiny_sae, tmp_path_factory.mktemp("home"), write_timeout=0.5) as inside:
        yield inside


def ask_for_much(url: str) -> socket.socket:
    """Request a stream that is larger than the kernel buffers, which are set small."""
    body = json.dumps({
        "model": "tiny-llama", "messages": [{"role": "user", "content": "sea"}], "n": 128, "max_tokens": 240,
        "temperature": 2, "logprobs": True, "top_logprobs": 20, "stream": True, "logit_bias": {"2": -100},
    }).encode()  # fmt: skip
    where = httpx.URL(url)
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.settimeout(20)
    connection.connect((where.host, where.port))
    connection.sendall(request("POST /v1/chat/completions", f"Content-Length: {len(body)}", body=body))
    return connection


def in_flight(url: str) -> int:
    return int(httpx.get(f"{url}/api/status").json()["in_flight"])


def counted_until_idle(url: str) -> list[int]:
    """Numbers of open requests, polled until zero."""
    counts = [in_flight(url)]
    until = time.monotonic() + 60
    while counts[-1] and time.monotonic() < until:
        time.sleep(0.02)
        counts.append(in_flight(url))
    return counts


def test_stalled_reader_is_aborted_and_frees_the_engine(served: Inside) -> None:
    """All choices end at once; completed ones would end in turn, slot by slot."""
    with ask_for_much(served.url) as silent:
        assert silent.recv(100)
        *_, last, none = counted_until_idle(served.url)
        assert none == 0
        assert last > served.state.settings.slots
        assert closed_after(silent, 5) < 5


def test_slow_reader_gets_the_full_response(served: Inside) -> None:
    with ask_for_much(served.url) as slow:
        for _ in range(12):
            assert slow.recv(64 * 1024)
            time.sleep(0.15)
    assert counted_until_idle(served.url)[-1] == 0
