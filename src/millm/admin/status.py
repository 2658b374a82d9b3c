"""`GET /api/status`: what is loaded, how busy it is, what steers it and what was given up."""

import msgspec
from fastapi import APIRouter, Request, Response

from millm import __version__
from millm.access import requires
from millm.engine.messages import ModelFacts, SaeFacts
from millm.state import State

router = APIRouter()


class ModelStatus(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    facts: ModelFacts


class SteeringStatus(msgspec.Struct, frozen=True, kw_only=True):
    profile: str | None
    """None: a steering without a name."""
    fingerprint: str


class ServerStatus(msgspec.Struct, frozen=True, kw_only=True):
    """The answer."""

    version: str
    status: str
    """`loading`, `ready`, `restarting` (the engine died; the model is being loaded again) or `down`."""
    model: ModelStatus | None
    saes: tuple[SaeFacts, ...]
    """Those attached."""
    steering: SteeringStatus | None
    """What steers requests that do not say otherwise."""
    degraded: str | None
    """What was given up to go on answering."""
    in_flight: int
    """Answers asked for and not ended; each of `n` counts."""
    running: int
    waiting: int


@router.get("/status", dependencies=[requires("monitor")])
async def get_status(request: Request) -> Response:
    """What the server is and does at this moment."""
    return Response(msgspec.json.encode(_status(request.app.state.millm)), media_type="application/json")


def _status(state: State) -> ServerStatus:
    engine, model, active = state.engine, state.model, state.active
    return ServerStatus(
        version=__version__,
        status=state.status,
        model=ModelStatus(name=model.name, facts=model.facts) if model else None,
        saes=tuple(attached.facts for attached in state.saes.values()),
        steering=SteeringStatus(profile=active.profile, fingerprint=active.steering.fingerprint) if active else None,
        degraded=engine.degraded,
        in_flight=engine.in_flight,
        running=engine.running,
        waiting=engine.in_flight - engine.running,
    )
