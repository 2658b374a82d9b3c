"""`/api/requests`: the last requests that were answered, with what was watched in them. In memory alone."""

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request, Response

from millm.access import requires
from millm.admin.answers import answered, listed
from millm.admin.monitor_told import Forgotten, RequestTold
from millm.admin.route import AdminRoute, told
from millm.monitor.history import Filter
from millm.monitor.rows import RequestRow
from millm.state import State

router = APIRouter(prefix="/requests", route_class=AdminRoute)

Text = Annotated[str | None, Query(max_length=512)]


def wanted(
    client: Text = None,
    profile: Annotated[str | None, Query(max_length=512, description="Empty: those without one.")] = None,
    task: Annotated[str | None, Query(max_length=512, description="Empty: those of no task.")] = None,
    endpoint: Annotated[str | None, Query(max_length=512, description="Such as `/v1/chat/completions`.")] = None,
    sae: Annotated[str | None, Query(max_length=512, description="Some of it was watched.")] = None,
    feature: Annotated[int | None, Query(ge=0, description="Watched by name, or among the most active.")] = None,
) -> Filter:
    """Which requests are meant: those that have all of these."""
    return Filter(client=client, profile=profile, task=task, endpoint=endpoint, sae=sae, feature=feature)


Wanted = Annotated[Filter, Depends(wanted)]


@router.get("", dependencies=[requires("monitor")], responses=listed(RequestRow, "requests"))
async def list_requests(
    request: Request,
    which: Wanted,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    before: Annotated[str | None, Query(max_length=512, description="A request's id: only older ones.")] = None,
) -> Response:
    """The last requests, the newest first; without activations."""
    state: State = request.app.state.millm
    newest = state.monitor.history.newest(which, before)
    return told({"requests": [entry.row for entry, _ in zip(newest, range(limit), strict=False)]})


@router.get("/{id}", dependencies=[requires("monitor")], responses=answered(RequestTold))
async def get_request(request: Request, id: str, which: Wanted) -> Response:
    """One request, with what was watched in it; `sae` and `feature` leave out what was not."""
    state: State = request.app.state.millm
    entry = state.monitor.history.find(id)
    seen = tuple(token for track in filter(which.means, entry.tracks) for token in track.tokens())
    texts = entry.texts
    return told(
        RequestTold(request=entry.row, activations=seen, prompts=texts.prompts, answers=texts.answers, body=texts.body)
    )


@router.delete("/{id}", dependencies=[requires("admin")], responses=answered(Forgotten))
async def delete_request(request: Request, id: str) -> Response:
    """Forget one request."""
    state: State = request.app.state.millm
    state.monitor.history.forget(id)
    return told(Forgotten(requests=1))


@router.delete("", dependencies=[requires("admin")], responses=answered(Forgotten))
async def delete_requests(request: Request) -> Response:
    """Forget all of them."""
    state: State = request.app.state.millm
    return told(Forgotten(requests=state.monitor.history.clear()))
