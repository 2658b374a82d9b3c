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
from millm.openai.envelope import answer_failure

log = structlog.get_logger()

LARGEST_BODY = 4 * 2**20
"""Bytes, unless MILLM_MAX_BODY_BYTES says otherwise: room for a million tokens, not for a server's memory."""

_SANE_ID = re.compile(r"[\w-]{1,64}", re.ASCII)
OnEnd = Callable[[Scope, int | None, float], None]
"""(scope, status, seconds) of a request or a websocket; no status: nothing was sent."""

_STARTS = ("http.response.start", "websocket.http.response.start")


class RequestEdge:
    """Middleware: an `x-request-id` on every answer, a limit on every body, no failure without an answer."""

    def __init__(self, app: ASGIApp, largest_body: int = LARGEST_BODY, on_end: OnEnd = lambda *_: None) -> None:
        self.app = app
        self._on_end = on_end
        self._largest_body = largest_body
        self._door = asyncio.Lock()

    async def _take_turn(self) -> None:
        """A crowd comes in one by one, a turn of the event loop each: `/healthz` is answered in between."""
        async with self._door:
            await asyncio.sleep(0)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            return await self.app(scope, receive, send)
        answer, began = _Answer(send, _request_id(Headers(scope=scope))), time.monotonic()
        routed = _headless(scope)  # what the router finds is noted in it, and in its `state` what was answered
        routed.setdefault("state", {})
        with structlog.contextvars.bound_contextvars(request_id=answer.request_id):
            try:
                await self._answer(routed, receive, answer)
            finally:
                self._on_end({**routed, "method": scope.get("method", "WEBSOCKET")}, answer.status, _since(began))
        return None

    async def _answer(self, scope: Scope, receive: Receive, answer: "_Answer") -> None:
        if scope["type"] == "websocket":
            return await self.app(scope, receive, answer.send)
        if scope["path"].startswith("/v1/"):
            await self._take_turn()
        try:
            await self.app(scope, _limited(scope, receive, self._largest_body), answer.send)
        except asyncio.CancelledError:  # the server stops, and this did not end of itself in time
            if not answer.started:
                stopped = ShuttingDown("the server was stopped before this was done; try again when it is back")
                await answer_failure(stopped)(scope, receive, answer.send)
            raise
        except Exception as failure:  # the edge: what nobody caught is logged and told as a 500
            log.exception("request.failed")
            if answer.started:
                raise  # half an answer is out: only a cut connection can still tell the client
            await answer_failure(failure)(scope, receive, answer.send)
        return None


class _Answer:
    """What is sent to the client, with the request's id in its headers."""

    def __init__(self, send: Send, request_id: str) -> None:
        self.request_id = request_id
        self.status: int | None = None
        self._send = send

    @property
    def started(self) -> bool:
        return self.status is not None

    async def send(self, message: Message) -> None:
        if message["type"] in _STARTS:
            self.status = message["status"]
            MutableHeaders(scope=message)["x-request-id"] = self.request_id
        elif message["type"] == "websocket.accept":
            self.status = 101
        await self._send(message)


def _since(began: float) -> float:
    return time.monotonic() - began


def _request_id(headers: Headers) -> str:
    """The client's own id, so that its logs and ours agree; a new one where it sent none or a strange one."""
    given = headers.get("x-request-id", "")
    return given if _SANE_ID.fullmatch(given) else f"req_{uuid.uuid4().hex}"


def _headless(scope: Scope) -> Scope:
    """HEAD is answered as GET: the server, which knows the difference, keeps the body to itself."""
    return {**scope, "method": "GET"} if scope.get("method") == "HEAD" else scope


def _limited(scope: Scope, receive: Receive, largest: int) -> Receive:
    """`receive`, which refuses a body by the length it declares, or by what came where it declares none."""
    declared = Headers(scope=scope).get("content-length", "0")
    is_too_large = declared.isdecimal() and int(declared) > largest
    left = largest
    refused = HTTPException(413, f"The body is too large; the limit is {largest:,} bytes (MILLM_MAX_BODY_BYTES).")

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
