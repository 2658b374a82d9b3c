"""`/api/queue`: the requests that are being answered or wait for that, and ending one of them."""

from fastapi import APIRouter, Request, Response

from millm.access import requires
from millm.admin.answers import list_response, struct_response
from millm.admin.route import AdminRoute, json_response
from millm.errors import RequestNotFound
from millm.events import OpenRequest
from millm.state import State

queue_router = APIRouter(prefix="/queue", route_class=AdminRoute)


@queue_router.get("", dependencies=[requires("monitor")], responses=list_response(OpenRequest, "requests"))
async def list_queue(request: Request) -> Response:
    """The requests that have not ended, the oldest first."""
    state: State = request.app.state.millm
    return json_response({"requests": [recording.snapshot() for recording in state.monitor.open_requests.values()]})


@queue_router.post("/{id}/cancel", dependencies=[requires("admin")], responses=struct_response(OpenRequest))
async def cancel_request(request: Request, id: str) -> Response:
    """End a request: its client is told `request_cancelled`."""
    state: State = request.app.state.millm
    recording = state.monitor.open_requests.get(id)
    if recording is None or not state.engine.abort(*recording.sequence_ids):
        raise RequestNotFound("No open request has this id; it may just have ended.", param="id")
    return json_response(recording.snapshot())
