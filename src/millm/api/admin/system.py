"""The server's own routes under `/api`: status, hardware, download jobs, logs, request queue, settings, tickets."""

import asyncio
from typing import Annotated, Literal

import msgspec
from fastapi import APIRouter, Depends, Path, Query, Response

from millm import __version__, settings
from millm.api.admin.openapi import list_response, struct_response
from millm.api.admin.route import AdminRoute, ServerState, json_response
from millm.api.dependencies import ScopeDependency, requires
from millm.auth import TICKET_LIFETIME_SECONDS, Principal
from millm.errors import RequestNotFound
from millm.events import RequestRecord
from millm.hardware import Hardware, read_hardware
from millm.hub.jobs import DownloadJob
from millm.lifecycle.changes import seconds_until_unload
from millm.logs import RECENT_LINES
from millm.logs.recent import MAX_LINES, LogEntry
from millm.profiles.active import ActiveSteeringState
from millm.state import State
from millm.status import ModelStatus, ServerStatus, SteeringStatus

hardware_router = APIRouter()


@hardware_router.get("/hardware", dependencies=[requires("monitor")], responses=struct_response(Hardware))
async def get_hardware(state: ServerState) -> Response:
    """The processor, memory, GPUs and disk, and why models run on the CPU if they do."""
    return json_response(await asyncio.to_thread(read_hardware, state.settings.home_folder, state.engine.platform))


jobs_router = APIRouter(prefix="/jobs", route_class=AdminRoute)
JobId = Annotated[str, Path(max_length=64)]


@jobs_router.get("", dependencies=[requires("monitor")], responses=list_response(DownloadJob, "jobs"))
async def list_jobs(state: ServerState) -> Response:
    """All download jobs, newest first."""
    return json_response({"jobs": state.hub.downloads.jobs()})


@jobs_router.get("/{id}", dependencies=[requires("monitor")], responses=struct_response(DownloadJob))
async def get_job(state: ServerState, id: JobId) -> Response:
    """One job."""
    return json_response(state.hub.downloads.find(id))


@jobs_router.post("/{id}/cancel", dependencies=[requires("admin")], responses=struct_response(DownloadJob))
async def cancel_job(state: ServerState, id: JobId) -> Response:
    """Cancel a download; completed files stay."""
    return json_response(await state.hub.downloads.cancel(id))


@jobs_router.post("/{id}/resume", dependencies=[requires("admin")], responses=struct_response(DownloadJob))
async def resume_job(state: ServerState, id: JobId) -> Response:
    """Resume an interrupted, cancelled or failed download."""
    return json_response(await state.hub.downloads.resume(id))


logs_router = APIRouter(route_class=AdminRoute)


@logs_router.get("/logs", dependencies=[requires("monitor")], responses=list_response(LogEntry, "lines"))
async def get_logs(
    level: Annotated[
        Literal["debug", "info", "warning", "error"], Query(description="The least severe that is shown.")
    ] = "info",
    limit: Annotated[int, Query(ge=1, le=MAX_LINES)] = 200,
    after: Annotated[int | None, Query(ge=0, description="The number of a line: only what came after it.")] = None,
) -> Response:
    """The latest log lines, oldest first, without secrets, tracebacks and paths; with `after`, the first after it."""
    return json_response({"lines": RECENT_LINES.lines(level=level, limit=limit, after=after)})


queue_router = APIRouter(prefix="/queue", route_class=AdminRoute)


@queue_router.get("", dependencies=[requires("monitor")], responses=list_response(RequestRecord, "requests"))
async def list_queue(state: ServerState) -> Response:
    """The running and waiting requests, oldest first."""
    return json_response(
        {"requests": [recorder.update_duration() for recorder in state.monitor.open_requests.values()]}
    )


@queue_router.post("/{id}/cancel", dependencies=[requires("admin")], responses=struct_response(RequestRecord))
async def cancel_request(state: ServerState, id: str) -> Response:
    """Cancel a request; its client gets the error `request_cancelled`."""
    recorder = state.monitor.open_requests.get(id)
    if recorder is None or not state.engine.abort(*recorder.sequence_ids):
        raise RequestNotFound("No open request has this id; it may just have ended.", param="id")
    return json_response(recorder.update_duration())


settings_router = APIRouter()


@settings_router.get(
    "/settings", dependencies=[requires("monitor")], responses=list_response(settings.Setting, "settings")
)
async def get_settings(state: ServerState) -> Response:
    """Every setting, its value and origin; values of keys and folders are withheld."""
    return json_response({"settings": settings.list_settings(state.settings)})


router = APIRouter()


@router.get("/status", dependencies=[requires("monitor")], responses=struct_response(ServerStatus))
async def get_status(state: ServerState) -> Response:
    """The server's current status."""
    return json_response(server_status(state))


def server_status(state: State) -> ServerStatus:
    engine, model, active = state.engine, state.model, state.active
    return ServerStatus(
        version=__version__,
        status=state.status,
        cause=state.cause,
        changing=state.changing,
        model=ModelStatus(
            name=model.name, facts=model.facts, estimate=model.estimate, unloads_in=seconds_until_unload(state)
        )
        if model
        else None,
        saes=tuple(attached.facts for attached in state.saes.values()),
        steering=_steering_status(active) if active else None,
        degraded=engine.degraded_reason,
        notice=state.hub.database.notice,
        platform=engine.platform,
        in_flight=engine.in_flight,
        running=engine.running,
        waiting=engine.in_flight - engine.running,
    )


def _steering_status(active: ActiveSteeringState) -> SteeringStatus:
    return SteeringStatus(
        profile=active.profile,
        fingerprint=active.steering.fingerprint if active.steering else None,
        on=active.on,
        is_modified=active.is_modified,
    )


tickets_router = APIRouter()


class Ticket(msgspec.Struct, frozen=True):
    """A single-use credential for a websocket."""

    ticket: str
    """For the query parameter `?ticket=`."""
    expires_in: int
    """Seconds."""


@tickets_router.post("/ws-ticket")
async def issue_ticket(
    state: ServerState, principal: Annotated[Principal, Depends(ScopeDependency("monitor"))]
) -> Response:
    """Issue a ticket in place of this request's key, which a browser cannot send with a websocket."""
    ticket = Ticket(state.tickets.issue(principal), TICKET_LIFETIME_SECONDS)
    return Response(msgspec.json.encode(ticket), headers={"Cache-Control": "no-store"}, media_type="application/json")
