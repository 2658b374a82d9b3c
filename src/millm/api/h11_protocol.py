"""The server's HTTP protocol: limits on time, connections and headers, and the response to invalid HTTP.

uvicorn has no time limit on the arrival of a request or on reading its response, and `limit_concurrency` would let idle
connections block everyone. So this is a subclass of its h11 protocol; httptools has no limit on headers (the cause of
https://nvd.nist.gov/vuln/detail/CVE-2025-48956). Written against uvicorn 0.54.
"""

import asyncio
import ipaddress
import sys
import uuid
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import h11
import msgspec
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import STATUS_PHRASES, H11Protocol

from millm.api.middleware import SECURITY_HEADERS
from millm.errors import InvalidRequest
from millm.protocol.errors import error_body
from millm.settings import Settings

MAX_CONNECTIONS = 1024
MAX_CONNECTIONS_PER_ADDRESS = 128
"""Not applied to loopback, the address of a reverse proxy."""
MAX_HEAD_BYTES = 32 * 2**10
"""Limit for request line and headers."""
MAX_WEBSOCKET_MESSAGE_BYTES = 64 * 2**10
"""Limit for one websocket message."""
_CHUNK_BYTES = 4096
"""Read size; a head may exceed its limit by less than this."""
_HEADERS_TOO_LARGE = 431


@dataclass(frozen=True)
class SocketTimeouts:
    """Seconds."""

    read: float
    """Limit for the arrival of a complete request."""
    write: float
    """Limit for the client to read the next byte of the response."""


def uvicorn_config(app: ASGIApp, settings: Settings, *, stop_seconds: int) -> uvicorn.Config:
    """`stop_seconds`: time for running requests to end at shutdown."""
    timeouts = SocketTimeouts(settings.read_timeout, settings.write_timeout)
    return uvicorn.Config(
        app,
        http=cast(type[asyncio.Protocol], partial(GuardedH11, timeouts=timeouts)),
        h11_max_incomplete_event_size=MAX_HEAD_BYTES,
        ws="websockets-sansio",
        ws_max_size=MAX_WEBSOCKET_MESSAGE_BYTES,
        ws_per_message_deflate=False,
        log_config=None,
        access_log=False,
        lifespan="off",
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=stop_seconds,
    )


class GuardedH11(H11Protocol):
    """One connection. It is aborted at a limit without a response, which could not be delivered in time."""

    def __init__(self, *args: Any, timeouts: SocketTimeouts, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._timeouts = timeouts
        self._read_timer: asyncio.TimerHandle | None = None
        self._write_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if self._exceeds_connection_limit():
            transport.abort()
        else:
            self._update_read_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        self._cancel_timer(self._read_timer)
        self._cancel_timer(self._write_timer)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """In chunks: h11 checks the size of a head only while it is incomplete."""
        for start in range(0, len(data), _CHUNK_BYTES):
            if self.transport.is_closing() or self.transport.get_protocol() is not self:
                return
            super().data_received(data[start : start + _CHUNK_BYTES])

    def handle_events(self) -> None:
        super().handle_events()
        self._update_read_timer()

    def handle_websocket_upgrade(self, event: h11.Request) -> None:
        self._cancel_timer(self._read_timer)
        super().handle_websocket_upgrade(event)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._start_write_timer()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._cancel_timer(self._write_timer)
        self._write_timer = None

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002  uvicorn's message, replaced by ours
        """Sends the error format with h11's status; nothing once a response has started."""
        failure = sys.exc_info()[1]  # uvicorn calls this while it handles h11's error
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE) and isinstance(failure, h11.RemoteProtocolError):
            self.transport.write(self._error_response(failure.error_status_hint))
        self.transport.close()

    def _error_response(self, status: int) -> bytes:
        message = (
            f"The headers are too large; the limit is {MAX_HEAD_BYTES:,} bytes."
            if status == _HEADERS_TOO_LARGE
            else "This is not a valid HTTP request."
        )
        body = msgspec.json.encode(error_body(InvalidRequest(message)))
        headers = {
            **SECURITY_HEADERS,
            "Content-Type": "application/json",
            "Content-Length": str(len(body)),
            "Connection": "close",
            "x-request-id": f"req_{uuid.uuid4().hex}",
        }
        start = h11.Response(status_code=status, headers=list(headers.items()), reason=STATUS_PHRASES[status])
        return b"".join(self.conn.send(part) or b"" for part in (start, h11.Data(data=body), h11.EndOfMessage()))

    def _exceeds_connection_limit(self) -> bool:
        if len(self.connections) > MAX_CONNECTIONS:
            return True
        if self.client is None or ipaddress.ip_address(self.client[0]).is_loopback:
            return False
        return sum(_address(other) == self.client[0] for other in self.connections) > MAX_CONNECTIONS_PER_ADDRESS

    def _update_read_timer(self) -> None:
        """One timer per request: a timer per read would allow one byte a second."""
        if self.conn.their_state not in (h11.IDLE, h11.SEND_BODY):
            self._cancel_timer(self._read_timer)
            self._read_timer = None
        elif self._read_timer is None and not self.transport.is_closing():
            self._read_timer = self.loop.call_later(self._timeouts.read, self.transport.abort)

    def _start_write_timer(self) -> None:
        waiting = self.transport.get_write_buffer_size()
        self._write_timer = self.loop.call_later(self._timeouts.write, self._abort_if_stalled, waiting)

    def _abort_if_stalled(self, buffered_before: int) -> None:
        """Aborts the connection, and so its generation, only when the client read nothing at all."""
        if self.transport.get_write_buffer_size() < buffered_before:
            self._start_write_timer()
        else:
            self.transport.abort()

    @staticmethod
    def _cancel_timer(timer: asyncio.TimerHandle | None) -> None:
        if timer:
            timer.cancel()


def _address(connection: object) -> str | None:
    client: tuple[str, int] | None = getattr(connection, "client", None)
    return client[0] if client else None
