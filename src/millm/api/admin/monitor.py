"""`/api/monitor`: the watch configuration, statistics and exports. `/api/requests`: the request history, in memory."""

from collections.abc import Callable, Iterable, Iterator
from typing import Annotated, Any, Literal

import msgspec
from fastapi import APIRouter, Depends, Query, Response
from pydantic import Field
from starlette.responses import StreamingResponse

from millm.api.admin.openapi import file_response, list_response, struct_response
from millm.api.admin.route import AdminRoute, ServerState, StrictBody, json_response
from millm.api.admin.schemas import DeletedRequests, MonitorState, RequestDetail, Statistics, WatchState
from millm.api.dependencies import requires
from millm.errors import InvalidRequest
from millm.events import RequestRecord
from millm.monitoring.history import HistoryEntry, RequestFilter
from millm.monitoring.statistics import HISTOGRAM_EDGES, export_csv, export_jsonl, feature_statistics
from millm.monitoring.watch import MonitorConfig, SaeWatch
from millm.profiles.resolve import check_index
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
    """A filter: requests match if all given fields do."""
    return RequestFilter(client=client, profile=profile, task=task, endpoint=endpoint, sae=sae, feature=feature)


FilterParams = Annotated[RequestFilter, Depends(filter_params)]


@requests_router.get("", dependencies=[requires("monitor")], responses=list_response(RequestRecord, "requests"))
async def list_requests(
    state: ServerState,
    which: FilterParams,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    before: Annotated[str | None, Query(max_length=512, description="A request's id: only older ones.")] = None,
) -> Response:
    """The latest requests, newest first, without activations."""
    newest = state.monitor.history.newest(which, before)
    return json_response({"requests": [entry.record for entry, _ in zip(newest, range(limit), strict=False)]})


@requests_router.get("/{id}", dependencies=[requires("monitor")], responses=struct_response(RequestDetail))
async def get_request(state: ServerState, id: str, which: FilterParams) -> Response:
    """One request with its watched activations, those of `sae` and `feature` only if given."""
    entry = state.monitor.history.find(id)
    tokens = tuple(token for track in filter(which.matches_track, entry.tracks) for token in track.tokens())
    texts = entry.texts
    return json_response(
        RequestDetail(
            request=entry.record, activations=tokens, prompts=texts.prompts, answers=texts.answers, body=texts.body
        )
    )


@requests_router.delete("/{id}", dependencies=[requires("admin")], responses=struct_response(DeletedRequests))
async def delete_request(state: ServerState, id: str) -> Response:
    """Delete one request from the history."""
    state.monitor.history.delete(id)
    return json_response(DeletedRequests(requests=1))


@requests_router.delete("", dependencies=[requires("admin")], responses=struct_response(DeletedRequests))
async def delete_requests(state: ServerState) -> Response:
    """Delete all requests from the history."""
    return json_response(DeletedRequests(requests=state.monitor.history.clear()))


router = APIRouter(prefix="/monitor", route_class=AdminRoute)
ExportWriter = Callable[[Iterable[HistoryEntry], RequestFilter], Iterator[bytes]]
EXPORT_FORMATS: dict[str, tuple[ExportWriter, str]] = {
    "jsonl": (export_jsonl, "application/x-ndjson"),
    "csv": (export_csv, "text/csv; charset=utf-8"),
}


class MonitorBody(StrictBody):
    """The complete watch configuration."""

    on: bool = True
    watch: Annotated[list[dict[str, Any]], Field(default_factory=list)]
    follow_profile: bool = False


@router.get("", dependencies=[requires("monitor")], responses=struct_response(MonitorState))
async def get_monitor(state: ServerState) -> Response:
    """The watch configuration."""
    return json_response(_monitor_state(state))


@router.put("", dependencies=[requires("admin")], responses=struct_response(MonitorState))
async def put_monitor(state: ServerState, body: MonitorBody) -> Response:
    """Replace the watch configuration. Applies to new requests and survives restarts."""
    config = _parse_config(body)
    _check_config(state, config)
    await state.monitor.set_config(config)
    return json_response(_monitor_state(state))


@router.get("/statistics", dependencies=[requires("monitor")], responses=struct_response(Statistics))
async def get_statistics(state: ServerState, which: FilterParams) -> Response:
    """Frequency and strength of each feature watched by name, in residual units."""
    entries = tuple(state.monitor.history.newest(which))
    return json_response(
        Statistics(edges=HISTOGRAM_EDGES, requests=len(entries), features=tuple(feature_statistics(entries, which)))
    )


@router.get(
    "/export",
    dependencies=[requires("monitor")],
    responses=file_response("application/x-ndjson", "text/csv"),
)
async def export(
    state: ServerState,
    which: FilterParams,
    format: Annotated[Literal["jsonl", "csv"], Query(description="A line per token, or a row per feature of it.")],
) -> Response:
    """The activations of the matching requests as a file, newest request first."""
    entries = tuple(state.monitor.history.newest(which))
    writer, media_type = EXPORT_FORMATS[format]
    headers = {"Content-Disposition": f'attachment; filename="activations.{format}"'}
    return StreamingResponse(writer(entries, which), media_type=media_type, headers=headers)


def _parse_config(body: MonitorBody) -> MonitorConfig:
    """Raises InvalidRequest, naming the field."""
    try:
        return msgspec.convert(body.model_dump(), MonitorConfig)
    except msgspec.ValidationError as error:
        reason, _, path = str(error).partition(" - at ")
        param = path.strip("`").removeprefix("$.").replace("[...]", "") or None
        raise InvalidRequest(f"`{param}`: {reason}.", param=param) from error


def _check_config(state: State, config: MonitorConfig) -> None:
    """Raises InvalidRequest for a watch without features, or one that an attached SAE cannot serve."""
    names = [one.sae for one in config.watch]
    for one in config.watch:
        if names.count(one.sae) > 1:
            raise InvalidRequest(f"`watch`: SAE {one.sae!r} is named twice; use one entry for it.", param="watch")
        if not one.features and not one.top_k:
            raise InvalidRequest(
                f"`watch`: of SAE {one.sae!r} name `features`, or a `top_k` of at least 1.", param="watch"
            )
        if one.sae in state.saes:
            _check_watch(one, state.saes[one.sae].facts.features)


def _check_watch(one: SaeWatch, features: int) -> None:
    for index in one.features:
        check_index(index, one.sae, features, "watch.features", InvalidRequest)
    if one.top_k > features:
        raise InvalidRequest(f"`top_k` must be at most {features} for SAE {one.sae!r}.", param="watch.top_k")


def _monitor_state(state: State) -> MonitorState:
    config, history = state.monitor.config, state.monitor.history
    return MonitorState(
        on=config.on,
        watch=tuple(
            WatchState(**msgspec.structs.asdict(one), active=config.on and one.sae in state.saes)
            for one in config.watch
        ),
        follow_profile=config.follow_profile,
        history=len(history),
        history_size=history.size,
        history_bytes=history.used_bytes,
    )
