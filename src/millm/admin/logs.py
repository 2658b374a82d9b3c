"""`GET /api/logs`: the latest lines of the server's and the engine's log, without secrets, traces and paths."""

from typing import Annotated, Literal

from fastapi import APIRouter, Query, Response

from millm.access import requires
from millm.admin.answers import listed
from millm.admin.route import AdminRoute, told
from millm.logs import RECENT
from millm.logs.recent import KEPT, Line

router = APIRouter(route_class=AdminRoute)


@router.get("/logs", dependencies=[requires("monitor")], responses=listed(Line, "lines"))
async def get_logs(
    level: Annotated[
        Literal["debug", "info", "warning", "error"], Query(description="The least severe that is shown.")
    ] = "info",
    limit: Annotated[int, Query(ge=1, le=KEPT)] = 200,
    after: Annotated[int | None, Query(ge=0, description="The number of a line: only what came after it.")] = None,
) -> Response:
    """The latest lines, the oldest of them first; with `after`, the first that came after that line."""
    return told({"lines": RECENT.lines(level=level, limit=limit, after=after)})
