"""`/api/steering`: what steers every request that does not say otherwise, to look at and to change while it answers."""

from collections.abc import Iterable
from typing import Annotated, Any

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from millm.access import requires
from millm.admin.answers import struct_response
from millm.admin.route import AdminRoute, json_response
from millm.admin.steering_told import steering_state
from millm.errors import InvalidRequest, SteeringOutdated
from millm.lifecycle import steering as lifecycle
from millm.lifecycle.changes import wait_until_started
from millm.lifecycle.selection import build_active, resolve_active
from millm.profiles.active import ActiveSteeringState, FeatureKey, feature_key
from millm.profiles.resolve import resolve_sae_name
from millm.profiles.schema import Index, ProfileFeature, SteeringRequest
from millm.sae.steering import Positions, Skip
from millm.state import State
from millm.status import SteeringState

router = APIRouter(prefix="/steering", route_class=AdminRoute)

Version = Annotated[
    int | None,
    Field(ge=0, strict=True, description="Refuse with 409 `steering_outdated` unless it is still this version."),
]


class SteeringBody(SteeringRequest):
    """A steering as in a request's body, or the name of a profile."""

    profile: Annotated[str | None, Field(description="Name of a profile, instead of all else.")] = None
    version: Version = None

    @model_validator(mode="after")
    def _check_exclusive(self) -> "SteeringBody":
        if self.profile is not None and self.model_fields_set - {"version"} != {"profile"}:
            raise PydanticCustomError("two_steerings", "Input should be a `profile` or a steering, not both")
        return self


class FeatureChange(ProfileFeature):
    """A knob that is turned, or added; what is left out stays as it is."""

    muted: Annotated[bool | None, Field(strict=True, description="Does nothing for now.")] = None
    solo: Annotated[bool | None, Field(strict=True, description="While any is, only these do something.")] = None


class FeatureRef(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    index: Index
    sae: Annotated[str | None, Field(max_length=512)] = None


class SteeringChange(BaseModel):
    """Some of the steering, the rest stays: all of it is applied, or nothing."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: Version = None
    on: Annotated[bool | None, Field(strict=True, description="The master switch.")] = None
    features: Annotated[tuple[FeatureChange, ...], Field(max_length=4096)] = ()
    remove: Annotated[tuple[FeatureRef, ...], Field(max_length=4096)] = ()
    positions: Positions | None = None
    skip: Skip | None = None
    skip_constrained: Annotated[bool | None, Field(strict=True)] = None


class VersionBody(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    version: Version = None


@router.get("", dependencies=[requires("monitor")], responses=struct_response(SteeringState))
async def get_steering(request: Request) -> Response:
    """What is active, with every knob in every unit."""
    return json_response(await steering_state(request.app.state.millm))


@router.put("", dependencies=[requires("admin")], responses=struct_response(SteeringState))
async def put_steering(request: Request, body: SteeringBody | None = None) -> Response:
    """Make a steering or a profile active; null and {} are the base model.

    Answers that are being made and follow what is active change from their next token.
    """
    if not await request.body():
        raise InvalidRequest("The body is missing; send a steering, a `profile`, or null for the base model.")
    state = await _check_version(request, body.version if body else None)
    asked = SteeringRequest.model_validate(body.model_dump(exclude={"profile", "version"})) if body else None
    await lifecycle.activate(state, resolve_active(state, steering=asked, profile=body.profile if body else None))
    return json_response(await steering_state(state))


@router.patch("", dependencies=[requires("admin")], responses=struct_response(SteeringState))
async def patch_steering(request: Request, body: SteeringChange) -> Response:
    """Turn, add, mute or remove some knobs, or flip the master switch; what is not named stays as it is."""
    state = await _check_version(request, body.version)
    await lifecycle.activate(state, _apply_change(state, state.active, body))
    return json_response(await steering_state(state))


@router.post("/undo", dependencies=[requires("admin")], responses=struct_response(SteeringState))
async def undo_steering(request: Request, body: VersionBody | None = None) -> Response:
    """Take the last change of the steering back; the last 50 can be."""
    state = await _check_version(request, body.version if body else None)
    await lifecycle.undo(state)
    return json_response(await steering_state(state))


@router.post("/redo", dependencies=[requires("admin")], responses=struct_response(SteeringState))
async def redo_steering(request: Request, body: VersionBody | None = None) -> Response:
    """Make the change again that was taken back last."""
    state = await _check_version(request, body.version if body else None)
    await lifecycle.redo(state)
    return json_response(await steering_state(state))


async def _check_version(request: Request, version: int | None) -> State:
    """Raises SteeringOutdated."""
    state: State = request.app.state.millm
    await wait_until_started(state)
    if version is not None and version != state.edits.version:
        raise SteeringOutdated(
            f"the steering is at version {state.edits.version}, this change was made for {version}; look at it again"
        )
    return state


def _apply_change(
    state: State, current: ActiveSteeringState | None, change: SteeringChange
) -> ActiveSteeringState | None:
    """Raises InvalidSteering and what `selection.active` raises."""
    before = current.request if current else SteeringRequest()
    knobs = {feature_key(feature): feature for feature in before.features}
    for which in change.remove:
        if knobs.pop(_feature_key(state, which), None) is None:
            raise InvalidRequest(f"`remove`: feature {which.index} is not steered.", param="remove")
    for turned in change.features:
        knob = _feature_key(state, turned)
        knobs[knob] = _apply_feature_change(knobs.get(knob), turned, knob)
    fields: dict[str, Any] = change.model_dump(include={"positions", "skip", "skip_constrained"}, exclude_unset=True)
    kept = {name: value for name, value in fields.items() if value is not None or name == "skip"}
    asked = before.model_copy(update={"features": tuple(knobs.values()), **kept})
    muted, solo = (current.muted, current.solo) if current else (frozenset[FeatureKey](), frozenset[FeatureKey]())
    return build_active(
        state,
        asked,
        profile=current.profile if current else None,
        muted=_with_flags(muted, ((_feature_key(state, one), one.muted) for one in change.features)) & knobs.keys(),
        solo=_with_flags(solo, ((_feature_key(state, one), one.solo) for one in change.features)) & knobs.keys(),
        on=(current.on if current else True) if change.on is None else change.on,
        is_modified=bool(current and current.profile) and (asked != before or bool(current and current.is_modified)),
    )


def _feature_key(state: State, feature: FeatureChange | FeatureRef) -> FeatureKey:
    return resolve_sae_name(state.saes, feature.sae, f"feature {feature.index}"), feature.index


def _apply_feature_change(before: ProfileFeature | None, change: FeatureChange, key: FeatureKey) -> ProfileFeature:
    given = change.model_dump(exclude_unset=True, exclude={"muted", "solo", "sae"})
    known = before.model_dump() if before else {}
    return ProfileFeature.model_validate({**known, **given, "sae": key[0]})


def _with_flags(keys: frozenset[FeatureKey], flags: Iterable[tuple[FeatureKey, bool | None]]) -> frozenset[FeatureKey]:
    """With those that are to be so, without those that are not to be."""
    for knob, wanted in flags:
        if wanted is not None:
            keys = keys | {knob} if wanted else keys - {knob}
    return keys
