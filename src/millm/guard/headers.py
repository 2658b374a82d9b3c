"""What every answer tells a browser: which pages may read it, and what a page of ours may do."""

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from millm.guard.rules import RequestRules

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
