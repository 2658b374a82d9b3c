"""A request that has ended, told: one line of the log, and one more in the count."""

from logging import DEBUG, INFO, WARNING

import structlog
from starlette.types import Scope

from millm.events import RequestRow
from millm.monitoring.metrics import Meter
from millm.monitoring.recorder import request_rows

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
        **_generation_fields(request_rows(scope)),
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


def _generation_fields(rows: list[RequestRow]) -> dict[str, object]:
    if not rows:
        return {}
    first = rows[0].first_token_seconds
    return {
        "answer": rows[0].id,
        "end": rows[0].end,
        "prompt_tokens": sum(row.prompt_tokens for row in rows),
        "completion_tokens": sum(row.completion_tokens for row in rows),
        "first_token_ms": None if first is None else round(first * 1000, 1),
    }
