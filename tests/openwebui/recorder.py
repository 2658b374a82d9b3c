"""A recording proxy between a client and a server, which streams everything through."""

import contextlib
import http.server
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import httpx

HOP_BY_HOP = {"connection", "transfer-encoding", "content-length", "host", "keep-alive", "content-encoding"}


@dataclass
class Exchange:
    """One request, its answer, and the moments (seconds, `time.monotonic`) at which bytes of it came."""

    path: str
    body: dict[str, Any]
    headers: dict[str, str]
    """Names in lower case."""
    begun: float
    status: int = 0
    answer: bytes = b""
    came: list[float] = field(default_factory=list)
    ended: float | None = None

    @property
    def first_byte_seconds(self) -> float:
        return self.came[0] - self.begun

    @property
    def events(self) -> list[dict[str, Any]]:
        """The events of a streamed answer."""
        lines = self.answer.decode().splitlines()
        return [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: {")]


@dataclass(frozen=True)
class Recorder:
    url: str
    exchanges: list[Exchange]

    def chats(self, *, streamed: bool) -> list[Exchange]:
        """Chats are streamed, background requests are not."""
        return [
            exchange
            for exchange in self.exchanges
            if exchange.path.endswith("/chat/completions") and bool(exchange.body.get("stream")) == streamed
        ]


@contextmanager
def recording(target: str) -> Iterator[Recorder]:
    """A recorder in front of `target`, on a free port of loopback."""
    exchanges: list[Exchange] = []
    limits = httpx.Limits(max_keepalive_connections=0)
    with httpx.Client(base_url=target, timeout=300, limits=limits) as upstream:
        door = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _handler(upstream, exchanges))
        threading.Thread(target=door.serve_forever, daemon=True).start()
        try:
            yield Recorder(f"http://127.0.0.1:{door.server_port}", exchanges)
        finally:
            door.shutdown()
            door.server_close()


def _handler(upstream: httpx.Client, exchanges: list[Exchange]) -> type[http.server.BaseHTTPRequestHandler]:
    class Door(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._pass_on()

        def do_POST(self) -> None:
            self._pass_on()

        def _pass_on(self) -> None:
            content = self.rfile.read(int(self.headers.get("content-length", 0)))
            headers = {name.lower(): value for name, value in self.headers.items()}
            exchange = Exchange(urlsplit(self.path).path, json.loads(content or b"{}"), headers, time.monotonic())
            exchanges.append(exchange)
            with contextlib.suppress(OSError, httpx.TransportError):  # one of the two has gone: so does the other
                self._ask(content, exchange)
            exchange.ended = time.monotonic()

        def _ask(self, content: bytes, exchange: Exchange) -> None:
            headers = {name: value for name, value in self.headers.items() if name.lower() not in HOP_BY_HOP}
            headers["accept-encoding"] = "identity"
            with upstream.stream(self.command, self.path, content=content, headers=headers) as answer:
                exchange.status = answer.status_code
                self.send_response(answer.status_code)
                for name, value in answer.headers.items():
                    if name.lower() not in HOP_BY_HOP:
                        self.send_header(name, value)
                self.end_headers()
                self._tell(answer, exchange)

        def _tell(self, answer: httpx.Response, exchange: Exchange) -> None:
            """HTTP/1.0: the answer ends with the connection."""
            for piece in answer.iter_raw():
                exchange.came.append(time.monotonic())
                exchange.answer += piece
                self.wfile.write(piece)
                self.wfile.flush()

        def log_message(self, *_arguments: object) -> None: ...

    return Door
