"""Clients by the hundred: one request on a plain socket each, light enough for one core."""

import asyncio
import contextlib
import json
import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def frames(self) -> list[str]:
        """The events of a stream, without comments."""
        frames = self.body.decode().split("\n\n")
        return [frame.removeprefix("data: ") for frame in frames if frame.startswith("data: ")]


async def send(url: str, body: dict[str, Any], path: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A request in progress."""
    address = urlsplit(url)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    content = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: {address.netloc}\r\nConnection: close\r\nContent-Type: application/json\r\n"
    writer.write(f"{head}Content-Length: {len(content)}\r\n\r\n".encode() + content)
    await writer.drain()
    return reader, writer


async def ask(url: str, body: dict[str, Any], path: str = "/v1/chat/completions") -> Answer:
    reader, writer = await send(url, body, path)
    try:
        return parse(await reader.read())
    finally:
        await leave(writer)


async def leave(writer: asyncio.StreamWriter) -> None:
    """Disconnect without closing the stream, like a client that crashes."""
    writer.transport.abort()
    with contextlib.suppress(OSError):
        await writer.wait_closed()


def parse(sent: bytes) -> Answer:
    head, _, body = sent.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    chunked = headers.get("transfer-encoding") == "chunked"
    return Answer(int(first.split()[1]), headers, _joined(body) if chunked else body)


def _joined(chunked: bytes) -> bytes:
    """Of a complete answer."""
    parts, place = [], 0
    while size := re.compile(rb"([0-9a-f]+)\r\n").match(chunked, place):
        end = size.end() + int(size[1], 16)
        parts.append(chunked[size.end() : end])
        place = end + len(b"\r\n")
    assert parts[-1:] == [b""], "the answer was cut"
    return b"".join(parts)
