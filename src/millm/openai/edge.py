"""The edge of every request: its id, the size of its body, the last place where a failure is caught, and its end.

Plain ASGI: starlette's BaseHTTPMiddleware would hide from a handler that its client has gone.
"""

import asyncio
import re
import time
import uuid
from collections.abc import Callable

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from millm.errors import ShuttingDown
from millm.protocol.errors import failure_response

log = structlog.get_logger()

DEFAULT_MAX_BODY_BYTES = 4 * 2**20
"""Bytes, unless MILLM_MAX_BODY_BYTES says otherwise: room for a million tokens, not for a server's memory."""

_SANE_ID = re.compile(r"[\w-]{1,64}", re.ASCII)
OnEnd = Callable[[Scope, int | None, float], None]
"""(scope, status, seconds) of a request or a websocket; no status: nothing was sent."""

_RESPONSE_STARTS = ("http.response.start", "websocket.http.response.start")


class RequestMiddleware:
    """Middleware: an `x-request-id` on every answer, a limit on every body, no failure without an answer."""

    def __init__(
        self, app: ASGIApp, largest_body: int = DEFAULT_MAX_BODY_BYTES, on_end: OnEnd = lambda *_: None
    ) -> None:
        self.app = app
        self._on_end = on_end
        self._max_body_bytes = largest_body
        self._turn_lock = asyncio.Lock()

    async def _await_turn(self) -> None:
        """A crowd comes in one by one, a turn of the event loop each: `/healthz` is answered in between."""
        async with self._turn_lock:
            await asyncio.sleep(0)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            return await self.app(scope, receive, send)
        answer, began = _ResponseSender(send, _request_id(Headers(scope=scope))), time.monotonic()
        routed = _head_as_get(scope)  # what the router finds is noted in it, and in its `state` what was answered
        routed.setdefault("state", {})
        with structlog.contextvars.bound_contextvars(request_id=answer.request_id):
            try:
                await self._handle(routed, receive, answer)
            finally:
                self._on_end(
                    {**routed, "method": scope.get("method", "WEBSOCKET")}, answer.status, _seconds_since(began)
                )
        return None

    async def _handle(self, scope: Scope, receive: Receive, sender: "_ResponseSender") -> None:
        if scope["type"] == "websocket":
            return await self.app(scope, receive, sender.send)
        if scope["path"].startswith("/v1/"):
            await self._await_turn()
        try:
            await self.app(scope, _limit_body(scope, receive, self._max_body_bytes), sender.send)
        except asyncio.CancelledError:  # the server stops, and this did not end of itself in time
            if not sender.has_started:
                stopped = ShuttingDown("the server was stopped before this was done; try again when it is back")
                await failure_response(stopped)(scope, receive, sender.send)
            raise
        except Exception as failure:  # the edge: what nobody caught is logged and told as a 500
            log.exception("request.failed")
            if sender.has_started:
                raise  # half an answer is out: only a cut connection can still tell the client
            await failure_response(failure)(scope, receive, sender.send)
        return None


class _ResponseSender:
    """What is sent to the client, with the request's id in its headers."""

    def __init__(self, send: Send, request_id: str) -> None:
        self.request_id = request_id
        self.status: int | None = None
        self._send = send

    @property
    def has_started(self) -> bool:
        return self.status is not None

    async def send(self, message: Message) -> None:
        if message["type"] in _RESPONSE_STARTS:
            self.status = message["status"]
            MutableHeaders(scope=message)["x-request-id"] = self.request_id
        elif message["type"] == "websocket.accept":
            self.status = 101
        await self._send(message)


def _seconds_since(start: float) -> float:
    return time.monotonic() - start


def _request_id(headers: Headers) -> str:
    """The client's own id, so that its logs and ours agree; a new one where it sent none or a strange one."""
    given = headers.get("x-request-id", "")
    return given if _SANE_ID.fullmatch(given) else f"req_{uuid.uuid4().hex}"


def _head_as_get(scope: Scope) -> Scope:
    """HEAD is answered as GET: the server, which knows the difference, keeps the body to itself."""
    return {**scope, "method": "GET"} if scope.get("method") == "HEAD" else scope


def _limit_body(scope: Scope, receive: Receive, max_bytes: int) -> Receive:
    """`receive`, which refuses a body by the length it declares, or by what came where it declares none."""
    declared = Headers(scope=scope).get("content-length", "0")
    is_too_large = declared.isdecimal() and int(declared) > max_bytes
    left = max_bytes
    refused = HTTPException(413, f"The body is too large; the limit is {max_bytes:,} bytes (MILLM_MAX_BODY_BYTES).")

    async def receive_limited() -> Message:
        nonlocal left
        if is_too_large:
            raise refused
        message = await receive()
        left -= len(message.get("body", b""))
        if left < 0:
            raise refused
        return message

    return receive_limited
