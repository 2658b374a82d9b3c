"""`GET /api/settings`: what the server was started with, and where each value comes from. Keys and folders are not."""

from fastapi import APIRouter, Request, Response

from millm import settings_told
from millm.access import requires
from millm.admin.answers import listed
from millm.admin.route import told
from millm.state import State

router = APIRouter()


@router.get("/settings", dependencies=[requires("monitor")], responses=listed(settings_told.Setting, "settings"))
async def get_settings(request: Request) -> Response:
    """Every setting; they hold until the server is started again."""
    state: State = request.app.state.millm
    return told({"settings": settings_told.told(state.settings)})
