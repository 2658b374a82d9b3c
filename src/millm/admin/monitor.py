"""`/api/monitor`: what is watched in every request, and what the history says of it: statistics, and files."""

from collections.abc import Callable, Iterable, Iterator
from typing import Annotated, Any, Literal

import msgspec
from fastapi import APIRouter, Query, Request, Response
from pydantic import Field
from starlette.responses import StreamingResponse

from millm.access import requires
from millm.admin.answers import answered, file
from millm.admin.ids import Body
from millm.admin.monitor_told import MonitorState, Statistics, WatchState
from millm.admin.requests import Wanted
from millm.admin.route import AdminRoute, told
from millm.errors import InvalidRequest
from millm.monitor.config import MonitorConfig, SaeWatch
from millm.monitor.export import as_csv, jsonl
from millm.monitor.history import Entry, Filter
from millm.monitor.statistics import EDGES, statistics
from millm.state import State

router = APIRouter(prefix="/monitor", route_class=AdminRoute)

Writer = Callable[[Iterable[Entry], Filter], Iterator[bytes]]
FORMATS: dict[str, tuple[Writer, str]] = {
    "jsonl": (jsonl, "application/x-ndjson"),
    "csv": (as_csv, "text/csv; charset=utf-8"),
}


class MonitorBody(Body):
    """What to watch in every request: all of it, as it is to be."""

    on: bool = True
    watch: Annotated[list[dict[str, Any]], Field(default_factory=list)]
    follow_profile: bool = False


@router.get("", dependencies=[requires("monitor")], responses=answered(MonitorState))
async def get_monitor(request: Request) -> Response:
    """What is watched in every request."""
    return told(_state(request.app.state.millm))


@router.put("", dependencies=[requires("admin")], responses=answered(MonitorState))
async def put_monitor(request: Request, body: MonitorBody) -> Response:
    """Watch this from now on, in every request that begins; it is remembered across restarts."""
    state: State = request.app.state.millm
    config = _config(body)
    _check(state, config)
    await state.monitor.change(config)
    return told(_state(state))


@router.get("/statistics", dependencies=[requires("monitor")], responses=answered(Statistics))
async def get_statistics(request: Request, which: Wanted) -> Response:
    """How often and how strongly each feature fired that was watched by name; of `values`, in residual units."""
    entries = tuple(request.app.state.millm.monitor.history.newest(which))
    return told(Statistics(edges=EDGES, requests=len(entries), features=tuple(statistics(entries, which))))


@router.get(
    "/export",
    dependencies=[requires("monitor")],
    responses=file("application/x-ndjson", "text/csv"),
)
async def export(
    request: Request,
    which: Wanted,
    format: Annotated[Literal["jsonl", "csv"], Query(description="A line per token, or a row per feature of it.")],
) -> Response:
    """The activations of the requests that are meant, as a file; the newest request first."""
    entries = tuple(request.app.state.millm.monitor.history.newest(which))
    writer, media_type = FORMATS[format]
    named = {"Content-Disposition": f'attachment; filename="activations.{format}"'}
    return StreamingResponse(writer(entries, which), media_type=media_type, headers=named)


def _config(body: MonitorBody) -> MonitorConfig:
    """Raises InvalidRequest, naming the field."""
    try:
        return msgspec.convert(body.model_dump(), MonitorConfig)
    except msgspec.ValidationError as wrong:
        reason, _, place = str(wrong).partition(" - at ")
        param = place.strip("`").removeprefix("$.").replace("[...]", "") or None
        raise InvalidRequest(f"`{param}`: {reason}.", param=param) from wrong


def _check(state: State, config: MonitorConfig) -> None:
    """Raises InvalidRequest for what can never be read, or not of what is attached."""
    names = [one.sae for one in config.watch]
    for one in config.watch:
        if names.count(one.sae) > 1:
            raise InvalidRequest(f"`watch`: SAE {one.sae!r} is named twice; ask once for all of it.", param="watch")
        if not one.features and not one.top_k:
            raise InvalidRequest(
                f"`watch`: of SAE {one.sae!r} name `features`, or a `top_k` of at least 1.", param="watch"
            )
        if one.sae in state.saes:
            _check_fits(one, state.saes[one.sae].facts.features)


def _check_fits(one: SaeWatch, features: int) -> None:
    wrong = next((feature for feature in one.features if feature >= features), None)
    if wrong is not None:
        raise InvalidRequest(f"feature {wrong} is not in 0..{features - 1} of SAE {one.sae!r}.", param="watch.features")
    if one.top_k > features:
        raise InvalidRequest(f"`top_k` must be at most {features} for SAE {one.sae!r}.", param="watch.top_k")


def _state(state: State) -> MonitorState:
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
        history_bytes=history.bytes,
    )
