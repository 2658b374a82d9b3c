"""`/api/requests`: the last requests that were answered, with what was watched in them. In memory alone."""

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request, Response

from millm.access import requires
from millm.admin.answers import list_response, struct_response
from millm.admin.monitor_told import DeletedRequests, RequestDetail
from millm.admin.route import AdminRoute, json_response
from millm.events import RequestRow
from millm.monitoring.history import RequestFilter
from millm.state import State

requests_router = APIRouter(prefix="/requests", route_class=AdminRoute)

FilterText = Annotated[str | None, Query(max_length=512)]


def filter_params(
    client: FilterText = None,
    profile: Annotated[str | None, Query(max_length=512, description="Empty: those without one.")] = None,
    task: Annotated[str | None, Query(max_length=512, description="Empty: those of no task.")] = None,
    endpoint: Annotated[str | None, Query(max_length=512, description="Such as `/v1/chat/completions`.")] = None,
    sae: Annotated[str | None, Query(max_length=512, description="Some of it was watched.")] = None,
    feature: Annotated[int | None, Query(ge=0, description="Watched by name, or among the most active.")] = None,
) -> RequestFilter:
    """Which requests are meant: those that have all of these."""
    return RequestFilter(client=client, profile=profile, task=task, endpoint=endpoint, sae=sae, feature=feature)


FilterParams = Annotated[RequestFilter, Depends(filter_params)]


@requests_router.get("", dependencies=[requires("monitor")], responses=list_response(RequestRow, "requests"))
async def list_requests(
    request: Request,
    which: FilterParams,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    before: Annotated[str | None, Query(max_length=512, description="A request's id: only older ones.")] = None,
) -> Response:
    """The last requests, the newest first; without activations."""
    state: State = request.app.state.millm
    newest = state.monitor.history.newest(which, before)
    return json_response({"requests": [entry.row for entry, _ in zip(newest, range(limit), strict=False)]})


@requests_router.get("/{id}", dependencies=[requires("monitor")], responses=struct_response(RequestDetail))
async def get_request(request: Request, id: str, which: FilterParams) -> Response:
    """One request, with what was watched in it; `sae` and `feature` leave out what was not."""
    state: State = request.app.state.millm
    entry = state.monitor.history.find(id)
    seen = tuple(token for track in filter(which.matches_track, entry.tracks) for token in track.tokens())
    texts = entry.texts
    return json_response(
        RequestDetail(
            request=entry.row, activations=seen, prompts=texts.prompts, answers=texts.answers, body=texts.body
        )
    )


@requests_router.delete("/{id}", dependencies=[requires("admin")], responses=struct_response(DeletedRequests))
async def delete_request(request: Request, id: str) -> Response:
    """Forget one request."""
    state: State = request.app.state.millm
    state.monitor.history.delete(id)
    return json_response(DeletedRequests(requests=1))


@requests_router.delete("", dependencies=[requires("admin")], responses=struct_response(DeletedRequests))
async def delete_requests(request: Request) -> Response:
    """Forget all of them."""
    state: State = request.app.state.millm
    return json_response(DeletedRequests(requests=state.monitor.history.clear()))
