"""Sends raw bytes over a socket and parses the response."""

import json
import socket
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit


@dataclass(frozen=True)
class Answer:
    """One response; `rest`: the bytes after it."""

    status: int
    headers: dict[str, str]
    body: bytes
    rest: bytes = b""

    @property
    def error(self) -> dict[str, Any]:
        found = json.loads(self.body)
        assert set(found) == {"error"}
        assert set(found["error"]) == {"message", "type", "param", "code"}
        return found["error"]


PATIENCE = 10
"""Seconds for a connection, and for the first byte of an answer."""


def connect(url: str) -> socket.socket:
    where = urlsplit(url)
    return socket.create_connection((where.hostname, where.port), timeout=PATIENCE)


def exchange(url: str, sent: bytes) -> Answer:
    """The response to `sent`; reads until the server closes or is silent."""
    with connect(url) as connection:
        connection.sendall(sent)
        return parse(until_silence(connection))


def until_silence(connection: socket.socket, seconds: float = 1.0) -> bytes:
    """Read until the peer closes, or is silent for `seconds` after its first byte."""
    connection.settimeout(PATIENCE)
    got = b""
    try:
        while part := connection.recv(65536):
            got += part
            connection.settimeout(0.1 if is_complete(got) else seconds)
    except (TimeoutError, ConnectionResetError):
        pass
    return got


def is_complete(got: bytes) -> bool:
    head, found, body = got.partition(b"\r\n\r\n")
    length = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
    return bool(found) and bool(length) and len(body) >= int(length[0].partition(b":")[2])


def parse(got: bytes) -> Answer:
    head, _, rest = got.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    length = int(headers.get("content-length", len(rest)))
    return Answer(int(first.split()[1]), headers, rest[:length], rest[length:])


def request(line: str, *headers: str, host: str | None = "localhost", body: bytes = b"") -> bytes:
    """`GET /path`, and headers as they are written."""
    hosts = () if host is None else (f"Host: {host}",)
    return "\r\n".join((f"{line} HTTP/1.1", *hosts, *headers, "", "")).encode("latin-1") + body


def handshake(path: str, *headers: str, host: str = "localhost") -> bytes:
    """A websocket's opening (RFC 6455 §1.2)."""
    return request(
        f"GET {path}",
        "Connection: Upgrade",
        "Upgrade: websocket",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        *headers,
        host=host,
    )
