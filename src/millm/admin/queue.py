"""`/api/queue`: the requests that are being answered or wait for that, and ending one of them."""

from fastapi import APIRouter, Request, Response

from millm.access import requires
from millm.admin.answers import answered, listed
from millm.admin.route import AdminRoute, told
from millm.errors import RequestNotFound
from millm.monitor.rows import OpenRequest
from millm.state import State

router = APIRouter(prefix="/queue", route_class=AdminRoute)


@router.get("", dependencies=[requires("monitor")], responses=listed(OpenRequest, "requests"))
async def list_queue(request: Request) -> Response:
    """The requests that have not ended, the oldest first."""
    state: State = request.app.state.millm
    return told({"requests": [recording.so_far() for recording in state.monitor.open.values()]})


@router.post("/{id}/cancel", dependencies=[requires("admin")], responses=answered(OpenRequest))
async def cancel_request(request: Request, id: str) -> Response:
    """End a request: its client is told `request_cancelled`."""
    state: State = request.app.state.millm
    recording = state.monitor.open.get(id)
    if recording is None or not state.engine.dismiss(*recording.sequences):
        raise RequestNotFound("No open request has this id; it may just have ended.", param="id")
    return told(recording.so_far())
