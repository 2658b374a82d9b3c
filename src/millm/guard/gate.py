"""The gate: a request or a websocket that breaks a rule is answered here, before anything of it is run."""

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from millm.errors import AmbiguousLength, MillmError
from millm.guard.rules import RequestRules
from millm.protocol.errors import failure_response
from millm.state import DrainGate

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
