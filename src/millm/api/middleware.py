"""The edge of every request: its id, the size of its body, the last place where a failure is caught, and its end.

Plain ASGI: starlette's BaseHTTPMiddleware would hide from a handler that its client has gone.

What is asked of a request's headers before anything of it is run. Raises; answers nothing itself.

The gate: a request or a websocket that breaks a rule is answered here, before anything of it is run.

What every answer tells a browser: which pages may read it, and what a page of ours may do.

A request that has ended, told: one line of the log, and one more in the count.
"""

import asyncio
import re
import time
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from logging import DEBUG, INFO, WARNING

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from millm.api.origins import Address, HostRule, OriginRule, parse_address
from millm.errors import AddressNotAllowed, AmbiguousLength, EncodedBody, MillmError, OriginNotAllowed, ShuttingDown
from millm.events import RequestRecord
from millm.monitoring.metrics import Meter
from millm.monitoring.recorder import ended_records
from millm.protocol.errors import failure_response
from millm.state import DrainGate

_API_PREFIXES = ("/v1", "/api")
_MAX_QUOTED_CHARS = 128
_NOT_ALLOWED = "may not use this server; MILLM_ALLOWED_ORIGINS lists those that may."


@dataclass(frozen=True)
class RequestRules:
    """Made once, of the operator's settings."""

    hosts: HostRule
    origins: OriginRule

    @classmethod
    def allowing(cls, hosts: Iterable[str], origins: Iterable[str]) -> "RequestRules":
        return cls(HostRule.allowing(hosts), OriginRule.allowing(origins))

    def check(self, headers: Headers, method: str, path: str) -> None:
        """Raises AmbiguousLength, EncodedBody, AddressNotAllowed or OriginNotAllowed."""
        _check_length(headers)
        _check_encoding(headers)
        host = self._checked_host(headers)
        origins = headers.getlist("origin")
        if not all(self.origins.allows(origin, host) for origin in origins) or len(origins) > 1:
            raise OriginNotAllowed(f"Pages of {origins[0][:_MAX_QUOTED_CHARS]!r} {_NOT_ALLOWED}")
        if not origins:
            _check_site(headers, method, path)

    def allowed_origin(self, headers: Headers) -> str | None:
        """The origin whose page may read the answer, if it is a page that asks and it may."""
        origin, host = headers.get("origin"), parse_address(headers.get("host", ""))
        return origin if origin and host and self.hosts.allows(host) and self.origins.allows(origin, host) else None

    def _checked_host(self, headers: Headers) -> Address:
        hosts = headers.getlist("host")
        address = parse_address(hosts[0]) if len(hosts) == 1 else None
        if address is None:
            raise AddressNotAllowed("The request must have exactly one `Host`, such as `localhost:8000`.")
        if not self.hosts.allows(address):
            raise AddressNotAllowed(
                f"This server does not answer to the name {address.name[:_MAX_QUOTED_CHARS]!r}; "
                "ask by IP address or localhost, or add the name to MILLM_ALLOWED_HOSTS."
            )
        return address


def _check_length(headers: Headers) -> None:
    """Two servers in a row that each believe another of the two would take one request for two."""
    if "content-length" in headers and "transfer-encoding" in headers:
        raise AmbiguousLength("Send `Content-Length` or `Transfer-Encoding`, not both.")


def _check_encoding(headers: Headers) -> None:
    if headers.get("content-encoding", "identity").lower() not in ("", "identity"):
        raise EncodedBody("Send the body as it is, without `Content-Encoding`.")


def _check_site(headers: Headers, method: str, path: str) -> None:
    """Forms, pictures and scripts of another site come without an Origin; browsers still tell where from."""
    if headers.get("sec-fetch-site") not in ("cross-site", "same-site"):
        return
    is_navigation = headers.get("sec-fetch-mode") == "navigate"
    if method != "GET" or (path.startswith(_API_PREFIXES) and not is_navigation):
        raise OriginNotAllowed(f"Pages of another site {_NOT_ALLOWED}")


METHODS = "GET, HEAD, POST, PUT, PATCH, DELETE"
REQUEST_HEADERS = (
    "accept", "authorization", "content-type", "http-referer", "idempotency-key", "openai-beta",
    "openai-organization", "openai-project", "x-millm-profile", "x-request-id", "x-title",
    *(f"x-stainless-{name}" for name in (
        "arch", "async", "custom-poll-interval", "helper-method", "lang", "os", "package-version", "poll-helper",
        "raw-response", "read-timeout", "retry-count", "runtime", "runtime-version", "stream-helper", "timeout",
    )),
)  # fmt: skip
"""What OpenAI's clients in a browser send."""
_PREFLIGHT = {
    "Access-Control-Allow-Methods": METHODS,
    "Access-Control-Allow-Headers": ", ".join(REQUEST_HEADERS),
    "Access-Control-Max-Age": "600",
}
_POLICY_VIOLATION = 1008
"""https://www.rfc-editor.org/rfc/rfc6455#section-7.4.1"""


class GuardMiddleware:
    """Middleware, for http and websocket alike."""

    def __init__(self, app: ASGIApp, rules: RequestRules, doors: DrainGate) -> None:
        self.app = app
        self._rules = rules
        self._doors = doors

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        headers, method = Headers(scope=scope), scope.get("method", "GET")
        try:
            self._rules.check(headers, method, scope["path"])
            self._doors.check(scope["type"], method)
        except MillmError as refused:
            await _refuse(refused, scope, receive, send)
            return
        if method == "OPTIONS" and "origin" in headers and "access-control-request-method" in headers:
            await Response(status_code=204, headers=_PREFLIGHT)(scope, receive, send)
        else:
            with self._doors.track_request(method, scope["path"]):
                await self.app(scope, receive, send)


async def _refuse(refused: MillmError, scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "websocket" and "websocket.http.response" not in scope.get("extensions", {}):
        await send({"type": "websocket.close", "code": _POLICY_VIOLATION})
        return
    answer = failure_response(refused)
    if isinstance(refused, AmbiguousLength):
        answer.headers["Connection"] = "close"  # where the next request would begin is anybody's guess
    await answer(scope, receive, send)


SECURITY_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'self'; img-src 'self' data:; connect-src 'self'; object-src 'none'; "
        "base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}
"""A page that needs another policy sends its own."""
_EXPOSED_HEADERS = "x-request-id, retry-after"
_HEADER_MESSAGES = ("http.response.start", "websocket.http.response.start")


class ResponseHeadersMiddleware:
    """Middleware, the outermost: what the others answer gets them too. Never a grant to all, nor for cookies."""

    def __init__(self, app: ASGIApp, rules: RequestRules) -> None:
        self.app = app
        self._rules = rules

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        is_asked = scope["type"] in ("http", "websocket")
        origin = self._rules.allowed_origin(Headers(scope=scope)) if is_asked else None

        async def send_with_headers(message: Message) -> None:
            if message["type"] in _HEADER_MESSAGES:
                _add_headers(MutableHeaders(scope=message), origin)
            await send(message)

        await self.app(scope, receive, send_with_headers)


def _add_headers(headers: MutableHeaders, origin: str | None) -> None:
    for name, value in SECURITY_HEADERS.items():
        headers.setdefault(name, value)
    if origin:
        headers["Access-Control-Allow-Origin"] = origin
        headers["Access-Control-Expose-Headers"] = _EXPOSED_HEADERS
        headers.add_vary_header("Origin")


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


access_log = structlog.get_logger()
QUIET_ROUTES = frozenset(("/healthz", "/readyz", "/metrics", "/ui", "/ui/{path}"))
"""Asked every few seconds by machines, or a dozen at once by a browser."""


def report_request_end(meter: Meter, scope: Scope, status: int | None, seconds: float) -> None:
    """By its route, not by its path: what a client wrote there is its own."""
    route, method = route_template(scope), scope.get("method", "WEBSOCKET")
    meter.count_response(route, method, status)
    access_log.log(
        _log_level(route, method, status),
        "request.ended",
        method=method[:16],
        route=route,
        status=status,
        ms=round(seconds * 1000, 1),
        **_generation_fields(ended_records(scope)),
    )


def route_template(scope: Scope) -> str | None:
    """With the names of its parameters: `/api/jobs/{id}`; None where nothing is served."""
    route = getattr(scope.get("route"), "path", None)
    if route is None:
        return None
    first = "/" + scope["path"].split("/")[1]  # a router's own prefix is not in its routes' paths
    whole: str = route if route.startswith(first) else first + route
    return whole.replace(":path}", "}")


def _log_level(route: str | None, method: str, status: int | None) -> int:
    """The page looks at `/api` every second, and would fill the log with that."""
    if route in QUIET_ROUTES:
        return DEBUG
    if status is None or status >= 400:
        return WARNING if status is None or status >= 500 else INFO
    is_look = method in ("GET", "HEAD") and route is not None and route.startswith("/api/")
    return DEBUG if is_look else INFO


def _generation_fields(records: list[RequestRecord]) -> dict[str, object]:
    if not records:
        return {}
    first = records[0].first_token_seconds
    return {
        "answer": records[0].id,
        "end": records[0].end,
        "prompt_tokens": sum(record.prompt_tokens for record in records),
        "completion_tokens": sum(record.completion_tokens for record in records),
        "first_token_ms": None if first is None else round(first * 1000, 1),
    }
