"""ASGI middleware around the application, and the access log.

Who may enter is decided here and in the files that this table names, in the order in which a request meets them:

    connections per address, time and size of a head    api/h11_protocol.py
    `Host`, `Origin`, lengths and encodings             RequestRules below, by the rules of api/origins.py
    whether the server is shutting down                 state.DrainGate, by GuardMiddleware below
    size of the body                                    RequestMiddleware below
    API key, scope, ticket of a websocket               api/dependencies.py at each route, by auth.py

Plain ASGI: starlette's BaseHTTPMiddleware would hide a client's disconnect from the handler.
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
from millm.monitoring.recorder import closed_records
from millm.protocol.errors import failure_response
from millm.state import DrainGate

_API_PREFIXES = ("/v1", "/api")
_MAX_QUOTED_CHARS = 128
_NOT_ALLOWED = "may not use this server; MILLM_ALLOWED_ORIGINS lists the allowed origins."


@dataclass(frozen=True)
class RequestRules:
    """Checks on headers, from the operator's settings."""

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
        """The origin whose page may read the response; None without a page or for a forbidden one."""
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
                "use an IP address or localhost, or add the name to MILLM_ALLOWED_HOSTS."
            )
        return address


def _check_length(headers: Headers) -> None:
    """Two servers that each trust a different one of the two could read one request as two (smuggling)."""
    if "content-length" in headers and "transfer-encoding" in headers:
        raise AmbiguousLength("Send `Content-Length` or `Transfer-Encoding`, not both.")


def _check_encoding(headers: Headers) -> None:
    if headers.get("content-encoding", "identity").lower() not in ("", "identity"):
        raise EncodedBody("Send the body as it is, without `Content-Encoding`.")


def _check_site(headers: Headers, method: str, path: str) -> None:
    """Forms, images and scripts of another site send no Origin, but browsers send Sec-Fetch-Site."""
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
"""Headers of OpenAI's clients in a browser."""
_PREFLIGHT = {
    "Access-Control-Allow-Methods": METHODS,
    "Access-Control-Allow-Headers": ", ".join(REQUEST_HEADERS),
    "Access-Control-Max-Age": "600",
}
_POLICY_VIOLATION = 1008
"""https://www.rfc-editor.org/rfc/rfc6455#section-7.4.1"""


class GuardMiddleware:
    """Rejects requests and websockets by headers and by the drain gate, and answers CORS preflights."""

    def __init__(self, app: ASGIApp, rules: RequestRules, drain_gate: DrainGate) -> None:
        self.app = app
        self._rules = rules
        self._drain_gate = drain_gate

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        headers, method = Headers(scope=scope), scope.get("method", "GET")
        try:
            self._rules.check(headers, method, scope["path"])
            self._drain_gate.check(scope["type"], method)
        except MillmError as error:
            await _reject(error, scope, receive, send)
            return
        if method == "OPTIONS" and "origin" in headers and "access-control-request-method" in headers:
            await Response(status_code=204, headers=_PREFLIGHT)(scope, receive, send)
        else:
            with self._drain_gate.track_request(method, scope["path"]):
                await self.app(scope, receive, send)


async def _reject(error: MillmError, scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "websocket" and "websocket.http.response" not in scope.get("extensions", {}):
        await send({"type": "websocket.close", "code": _POLICY_VIOLATION})
        return
    response = failure_response(error)
    if isinstance(error, AmbiguousLength):
        response.headers["Connection"] = "close"  # the start of the next request is unknown
    await response(scope, receive, send)


SECURITY_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'self'; img-src 'self' data:; connect-src 'self'; object-src 'none'; "
        "base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}
"""Defaults; a page may send its own policy."""
_EXPOSED_HEADERS = "x-request-id, retry-after"
_HEADER_MESSAGES = ("http.response.start", "websocket.http.response.start")


class ResponseHeadersMiddleware:
    """The outermost middleware: security and CORS headers on every response. Never allows `*` or cookies."""

    def __init__(self, app: ASGIApp, rules: RequestRules) -> None:
        self.app = app
        self._rules = rules

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        has_headers = scope["type"] in ("http", "websocket")
        origin = self._rules.allowed_origin(Headers(scope=scope)) if has_headers else None

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
"""Default of MILLM_MAX_BODY_BYTES: enough for a million tokens."""
_SANE_ID = re.compile(r"[\w-]{1,64}", re.ASCII)
OnEnd = Callable[[Scope, int | None, float], None]
"""(scope, status, seconds) of a request or websocket; status None: no response was sent."""
_RESPONSE_STARTS = ("http.response.start", "websocket.http.response.start")


class RequestMiddleware:
    """Adds `x-request-id`, limits the body, turns any exception into a response, and reports the end."""

    def __init__(
        self, app: ASGIApp, max_body_bytes: int = DEFAULT_MAX_BODY_BYTES, on_end: OnEnd = lambda *_: None
    ) -> None:
        self.app = app
        self._on_end = on_end
        self._max_body_bytes = max_body_bytes
        self._turn_lock = asyncio.Lock()

    async def _await_turn(self) -> None:
        """Admits concurrent requests one per event loop turn, so that `/healthz` is answered in between."""
        async with self._turn_lock:
            await asyncio.sleep(0)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            return await self.app(scope, receive, send)
        sender, began = _ResponseSender(send, _request_id(Headers(scope=scope))), time.monotonic()
        routed = _head_as_get(scope)  # the router adds its route, `state` the request records
        routed.setdefault("state", {})
        with structlog.contextvars.bound_contextvars(request_id=sender.request_id):
            try:
                await self._handle(routed, receive, sender)
            finally:
                final_scope = {**routed, "method": scope.get("method", "WEBSOCKET")}
                self._on_end(final_scope, sender.status, time.monotonic() - began)
        return None

    async def _handle(self, scope: Scope, receive: Receive, sender: "_ResponseSender") -> None:
        if scope["type"] == "websocket":
            return await self.app(scope, receive, sender.send)
        if scope["path"].startswith("/v1/"):
            await self._await_turn()
        try:
            await self.app(scope, _limit_body(scope, receive, self._max_body_bytes), sender.send)
        except asyncio.CancelledError:  # the server stopped before the request ended
            if not sender.has_started:
                error = ShuttingDown("the server stopped before the request ended; try again when it is back")
                await failure_response(error)(scope, receive, sender.send)
            raise
        except Exception as failure:  # the outer edge: unhandled errors are logged and answered with 500
            log.exception("request.failed")
            if sender.has_started:
                raise  # the response has started: only closing the connection can signal the failure
            await failure_response(failure)(scope, receive, sender.send)
        return None


class _ResponseSender:
    """Sends messages, with the request id in the headers."""

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


def _request_id(headers: Headers) -> str:
    """The client's `x-request-id` where it is well-formed, else a new one."""
    sent = headers.get("x-request-id", "")
    return sent if _SANE_ID.fullmatch(sent) else f"req_{uuid.uuid4().hex}"


def _head_as_get(scope: Scope) -> Scope:
    """HEAD is routed as GET; uvicorn omits the body."""
    return {**scope, "method": "GET"} if scope.get("method") == "HEAD" else scope


def _limit_body(scope: Scope, receive: Receive, max_bytes: int) -> Receive:
    """`receive` that rejects a body by its declared length, or by its actual length where none is declared."""
    declared = Headers(scope=scope).get("content-length", "0")
    is_too_large = declared.isdecimal() and int(declared) > max_bytes
    left = max_bytes
    too_large = HTTPException(413, f"The body is too large; the limit is {max_bytes:,} bytes (MILLM_MAX_BODY_BYTES).")

    async def receive_limited() -> Message:
        nonlocal left
        if is_too_large:
            raise too_large
        message = await receive()
        left -= len(message.get("body", b""))
        if left < 0:
            raise too_large
        return message

    return receive_limited


QUIET_ROUTES = frozenset(("/healthz", "/readyz", "/metrics", "/ui", "/ui/{path}"))
"""Logged at DEBUG: polled by machines, or requested by a browser in dozens."""


def report_request_end(meter: Meter, scope: Scope, status: int | None, seconds: float) -> None:
    """Count the request and write the access log: by route, since a path may hold data of a client."""
    route, method = route_template(scope), scope.get("method", "WEBSOCKET")
    meter.count_response(route, method, status)
    log.log(
        _log_level(route, method, status),
        "request.ended",
        method=method[:16],
        route=route,
        status=status,
        ms=round(seconds * 1000, 1),
        **_generation_fields(closed_records(scope)),
    )


def route_template(scope: Scope) -> str | None:
    """The route with its parameter names, such as `/api/jobs/{id}`; None for unknown addresses."""
    route = getattr(scope.get("route"), "path", None)
    if route is None:
        return None
    first = "/" + scope["path"].split("/")[1]  # a router's own prefix is not in its routes' paths
    template: str = route if route.startswith(first) else first + route
    return template.replace(":path}", "}")


def _log_level(route: str | None, method: str, status: int | None) -> int:
    """Reads of `/api` are DEBUG: the web page polls them every second."""
    if route in QUIET_ROUTES:
        return DEBUG
    if status is None or status >= 400:
        return WARNING if status is None or status >= 500 else INFO
    is_poll = method in ("GET", "HEAD") and route is not None and route.startswith("/api/")
    return DEBUG if is_poll else INFO


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
