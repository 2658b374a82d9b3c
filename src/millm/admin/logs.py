"""`GET /api/logs`: the latest lines of the server's and the engine's log, without secrets, traces and paths."""

from typing import Annotated, Literal

from fastapi import APIRouter, Query, Response

from millm.access import requires
from millm.admin.answers import list_response
from millm.admin.route import AdminRoute, json_response
from millm.logs import RECENT_LINES
from millm.logs.recent import MAX_LINES, LogEntry

logs_router = APIRouter(route_class=AdminRoute)


@logs_router.get("/logs", dependencies=[requires("monitor")], responses=list_response(LogEntry, "lines"))
async def get_logs(
    level: Annotated[
        Literal["debug", "info", "warning", "error"], Query(description="The least severe that is shown.")
    ] = "info",
    limit: Annotated[int, Query(ge=1, le=MAX_LINES)] = 200,
    after: Annotated[int | None, Query(ge=0, description="The number of a line: only what came after it.")] = None,
) -> Response:
    """The latest lines, the oldest of them first; with `after`, the first that came after that line."""
    return json_response({"lines": RECENT_LINES.lines(level=level, limit=limit, after=after)})
