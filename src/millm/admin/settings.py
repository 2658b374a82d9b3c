"""`GET /api/settings`: what the server was started with, and where each value comes from. Keys and folders are not."""

from fastapi import APIRouter, Request, Response

from millm import settings
from millm.access import requires
from millm.admin.answers import list_response
from millm.admin.route import json_response
from millm.state import State

settings_router = APIRouter()


@settings_router.get(
    "/settings", dependencies=[requires("monitor")], responses=list_response(settings.Setting, "settings")
)
async def get_settings(request: Request) -> Response:
    """Every setting; they hold until the server is started again."""
    state: State = request.app.state.millm
    return json_response({"settings": settings.list_settings(state.settings)})
