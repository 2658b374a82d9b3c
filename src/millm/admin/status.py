"""`GET /api/status`: what is loaded, how busy it is, what steers it and what was given up."""

from fastapi import APIRouter, Request, Response

from millm import __version__
from millm.access import requires
from millm.admin.answers import answered
from millm.admin.route import told
from millm.lifecycle.sleeping import seconds_left
from millm.profiles.active import Active
from millm.state import LoadedModel, State
from millm.status import ModelStatus, ServerStatus, SteeringStatus

router = APIRouter()


@router.get("/status", dependencies=[requires("monitor")], responses=answered(ServerStatus))
async def get_status(request: Request) -> Response:
    """What the server is and does at this moment."""
    return told(status_of(request.app.state.millm))


def _model(state: State, model: LoadedModel) -> ModelStatus:
    return ModelStatus(name=model.name, facts=model.facts, estimate=model.estimate, unloads_in=seconds_left(state))


def status_of(state: State) -> ServerStatus:
    engine, model, active = state.engine, state.model, state.active
    return ServerStatus(
        version=__version__,
        status=state.status,
        cause=state.cause,
        changing=state.changing,
        model=_model(state, model) if model else None,
        saes=tuple(attached.facts for attached in state.saes.values()),
        steering=_steering(active) if active else None,
        degraded=engine.degraded,
        notice=state.hub.database.notice,
        platform=engine.platform,
        in_flight=engine.in_flight,
        running=engine.running,
        waiting=engine.in_flight - engine.running,
    )


def _steering(active: Active) -> SteeringStatus:
    return SteeringStatus(
        profile=active.profile,
        fingerprint=active.steering.fingerprint if active.steering else None,
        on=active.on,
        is_modified=active.is_modified,
    )
