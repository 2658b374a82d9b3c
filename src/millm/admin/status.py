"""`GET /api/status`: what is loaded, how busy it is, what steers it and what was given up."""

from fastapi import APIRouter, Request, Response

from millm import __version__
from millm.access import requires
from millm.admin.answers import struct_response
from millm.admin.route import json_response
from millm.lifecycle.changes import seconds_until_unload
from millm.loaded import LoadedModel
from millm.profiles.active import ActiveSteeringState
from millm.state import State
from millm.status import ModelStatus, ServerStatus, SteeringStatus

router = APIRouter()


@router.get("/status", dependencies=[requires("monitor")], responses=struct_response(ServerStatus))
async def get_status(request: Request) -> Response:
    """What the server is and does at this moment."""
    return json_response(server_status(request.app.state.millm))


def _model_status(state: State, model: LoadedModel) -> ModelStatus:
    return ModelStatus(
        name=model.name, facts=model.facts, estimate=model.estimate, unloads_in=seconds_until_unload(state)
    )


def server_status(state: State) -> ServerStatus:
    engine, model, active = state.engine, state.model, state.active
    return ServerStatus(
        version=__version__,
        status=state.status,
        cause=state.cause,
        changing=state.changing,
        model=_model_status(state, model) if model else None,
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
