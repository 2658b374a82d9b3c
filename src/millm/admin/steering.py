"""`/api/steering`: what steers every request that does not say otherwise, to look at and to change while it answers."""

from collections.abc import Iterable
from typing import Annotated, Any

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from millm.access import requires
from millm.admin.answers import answered
from millm.admin.route import AdminRoute, told
from millm.admin.steering_told import steering_told
from millm.errors import InvalidRequest, SteeringOutdated
from millm.lifecycle import steering as lifecycle
from millm.lifecycle.changes import started
from millm.profiles.active import Active, Knob, knob_of
from millm.profiles.contract import Index, ProfileFeature, SteeringRequest
from millm.profiles.resolving import sae_of
from millm.profiles.selection import active, racked
from millm.sae.steering import Positions, Skip
from millm.state import State
from millm.status import SteeringState

router = APIRouter(prefix="/steering", route_class=AdminRoute)

Version = Annotated[
    int | None,
    Field(ge=0, strict=True, description="Refuse with 409 `steering_outdated` unless it is still this version."),
]


class ActiveSteering(SteeringRequest):
    """A steering as in a request's body, or the name of a profile."""

    profile: Annotated[str | None, Field(description="Name of a profile, instead of all else.")] = None
    version: Version = None

    @model_validator(mode="after")
    def _one_or_the_other(self) -> "ActiveSteering":
        if self.profile is not None and self.model_fields_set - {"version"} != {"profile"}:
            raise PydanticCustomError("two_steerings", "Input should be a `profile` or a steering, not both")
        return self


class Turned(ProfileFeature):
    """A knob that is turned, or added; what is left out stays as it is."""

    muted: Annotated[bool | None, Field(strict=True, description="Does nothing for now.")] = None
    solo: Annotated[bool | None, Field(strict=True, description="While any is, only these do something.")] = None


class WhichKnob(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    index: Index
    sae: Annotated[str | None, Field(max_length=512)] = None


class SteeringChange(BaseModel):
    """Some of the steering, the rest stays: all of it is applied, or nothing."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: Version = None
    on: Annotated[bool | None, Field(strict=True, description="The master switch.")] = None
    features: Annotated[tuple[Turned, ...], Field(max_length=4096)] = ()
    remove: Annotated[tuple[WhichKnob, ...], Field(max_length=4096)] = ()
    positions: Positions | None = None
    skip: Skip | None = None
    skip_constrained: Annotated[bool | None, Field(strict=True)] = None


class Which(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    version: Version = None


@router.get("", dependencies=[requires("monitor")], responses=answered(SteeringState))
async def get_steering(request: Request) -> Response:
    """What is active, with every knob in every unit."""
    return told(await steering_told(request.app.state.millm))


@router.put("", dependencies=[requires("admin")], responses=answered(SteeringState))
async def put_steering(request: Request, body: ActiveSteering | None = None) -> Response:
    """Make a steering or a profile active; null and {} are the base model.

    Answers that are being made and follow what is active change from their next token.
    """
    if not await request.body():
        raise InvalidRequest("The body is missing; send a steering, a `profile`, or null for the base model.")
    state = await _checked(request, body.version if body else None)
    asked = SteeringRequest.model_validate(body.model_dump(exclude={"profile", "version"})) if body else None
    await lifecycle.activate(state, active(state, steering=asked, profile=body.profile if body else None))
    return told(await steering_told(state))


@router.patch("", dependencies=[requires("admin")], responses=answered(SteeringState))
async def patch_steering(request: Request, body: SteeringChange) -> Response:
    """Turn, add, mute or remove some knobs, or flip the master switch; what is not named stays as it is."""
    state = await _checked(request, body.version)
    await lifecycle.activate(state, _changed(state, state.active, body))
    return told(await steering_told(state))


@router.post("/undo", dependencies=[requires("admin")], responses=answered(SteeringState))
async def undo_steering(request: Request, body: Which | None = None) -> Response:
    """Take the last change of the steering back; the last 50 can be."""
    state = await _checked(request, body.version if body else None)
    await lifecycle.undo(state)
    return told(await steering_told(state))


@router.post("/redo", dependencies=[requires("admin")], responses=answered(SteeringState))
async def redo_steering(request: Request, body: Which | None = None) -> Response:
    """Make the change again that was taken back last."""
    state = await _checked(request, body.version if body else None)
    await lifecycle.redo(state)
    return told(await steering_told(state))


async def _checked(request: Request, version: int | None) -> State:
    """Raises SteeringOutdated."""
    state: State = request.app.state.millm
    await started(state)
    if version is not None and version != state.edits.version:
        raise SteeringOutdated(
            f"the steering is at version {state.edits.version}, this change was made for {version}; look at it again"
        )
    return state


def _changed(state: State, current: Active | None, change: SteeringChange) -> Active | None:
    """Raises InvalidSteering and what `selection.active` raises."""
    before = current.asked if current else SteeringRequest()
    knobs = {knob_of(feature): feature for feature in before.features}
    for which in change.remove:
        if knobs.pop(_knob(state, which), None) is None:
            raise InvalidRequest(f"`remove`: feature {which.index} is not steered.", param="remove")
    for turned in change.features:
        knob = _knob(state, turned)
        knobs[knob] = _turned(knobs.get(knob), turned, knob)
    fields: dict[str, Any] = change.model_dump(include={"positions", "skip", "skip_constrained"}, exclude_unset=True)
    kept = {name: value for name, value in fields.items() if value is not None or name == "skip"}
    asked = before.model_copy(update={"features": tuple(knobs.values()), **kept})
    muted, solo = (current.muted, current.solo) if current else (frozenset[Knob](), frozenset[Knob]())
    return racked(
        state,
        asked,
        profile=current.profile if current else None,
        muted=_flipped(muted, ((_knob(state, one), one.muted) for one in change.features)) & knobs.keys(),
        solo=_flipped(solo, ((_knob(state, one), one.solo) for one in change.features)) & knobs.keys(),
        on=(current.on if current else True) if change.on is None else change.on,
        is_modified=bool(current and current.profile) and (asked != before or bool(current and current.is_modified)),
    )


def _knob(state: State, which: Turned | WhichKnob) -> Knob:
    return sae_of(state.saes, which.sae, f"feature {which.index}"), which.index


def _turned(before: ProfileFeature | None, turned: Turned, knob: Knob) -> ProfileFeature:
    given = turned.model_dump(exclude_unset=True, exclude={"muted", "solo", "sae"})
    known = before.model_dump() if before else {}
    return ProfileFeature.model_validate({**known, **given, "sae": knob[0]})


def _flipped(knobs: frozenset[Knob], flips: Iterable[tuple[Knob, bool | None]]) -> frozenset[Knob]:
    """With those that are to be so, without those that are not to be."""
    for knob, wanted in flips:
        if wanted is not None:
            knobs = knobs | {knob} if wanted else knobs - {knob}
    return knobs
