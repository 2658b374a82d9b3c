"""`/api/steering`: what steers every request that does not say otherwise, to look at and to change while it answers."""

from typing import Annotated, Any

from fastapi import APIRouter, Request, Response
from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError
from starlette.responses import JSONResponse

from millm.access import requires
from millm.admin.route import AdminRoute
from millm.errors import InvalidRequest
from millm.lifecycle.changes import started
from millm.lifecycle.steering import activate
from millm.profiles.contract import SteeringRequest
from millm.profiles.selection import active
from millm.state import Active, State

router = APIRouter(route_class=AdminRoute)


class ActiveSteering(SteeringRequest):
    """A steering as in a request's body, or the name of a profile."""

    profile: Annotated[str | None, Field(description="Name of a profile, instead of all else.")] = None

    @model_validator(mode="after")
    def _one_or_the_other(self) -> "ActiveSteering":
        if self.profile is not None and self.model_fields_set != {"profile"}:
            raise PydanticCustomError("two_steerings", "Input should be a `profile` or a steering, not both")
        return self


@router.get("/steering", dependencies=[requires("monitor")])
async def get_steering(request: Request) -> Response:
    """What is active; null is the base model."""
    return _told(request.app.state.millm.active)


@router.put("/steering", dependencies=[requires("admin")])
async def put_steering(request: Request, body: ActiveSteering | None = None) -> Response:
    """Make a steering or a profile active; null and {} are the base model.

    Answers that are being made and follow what is active change from their next token.
    """
    if not await request.body():
        raise InvalidRequest("The body is missing; send a steering, a `profile`, or null for the base model.")
    state: State = request.app.state.millm
    await started(state)
    asked = SteeringRequest.model_validate(body.model_dump(exclude={"profile"})) if body else None
    wanted = active(state, steering=asked, profile=body.profile if body else None)
    await activate(state, wanted)
    return _told(wanted)


def _told(active: Active | None) -> Response:
    if active is None:
        return JSONResponse(None)
    answer: dict[str, Any] = {
        "profile": active.profile,
        "fingerprint": active.steering.fingerprint,
        "steering": active.asked.model_dump(include=set(SteeringRequest.model_fields)),
    }
    return JSONResponse(answer)
