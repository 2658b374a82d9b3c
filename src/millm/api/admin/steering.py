"""`/api/steering`: what steers every request that does not say otherwise, to look at and to change while it answers.

What steers the server, told in every unit: each knob raw, × norm and × its maximum, and what they add up to.
"""

from collections.abc import Iterable, Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from millm.api.admin.openapi import struct_response
from millm.api.admin.route import AdminRoute, json_response
from millm.api.dependencies import requires
from millm.engine.messages import ComputeDirections, DirectionsComputed, SteeringDirection
from millm.errors import InvalidRequest, SteeringOutdated, Unavailable
from millm.lifecycle import steering as lifecycle
from millm.lifecycle.changes import wait_until_started
from millm.lifecycle.selection import build_active, resolve_active
from millm.loaded import AttachedSae
from millm.profiles.active import ActiveSteeringState, FeatureKey, feature_key
from millm.profiles.resolve import feature_coefficients, resolve_sae_name
from millm.profiles.schema import Index, ProfileFeature, SteeringRequest
from millm.sae.steering import Positions, Skip
from millm.state import State
from millm.status import SteeredFeature, SteeredHook, SteeringState

USUAL_MAX_NORM = 1.0
"""Beyond this multiple of the residual norm answers usually fall apart."""


async def steering_state(state: State) -> SteeringState:
    """Asks the engine how long the vectors are that are added, between two of its steps."""
    active, edits = state.active, state.edits
    if active is None:
        return SteeringState(
            version=edits.version, profile=None, is_modified=False, on=True, fingerprint=None, steering=None,
            undo=len(edits.undo_stack), redo=len(edits.redo_stack),
        )  # fmt: skip
    features = tuple(_steered_feature(state, active, one) for one in active.request.features)
    hooks = tuple(
        _steered_hook(state.saes[one.sae], one) for one in await _directions(state, active) if one.sae in state.saes
    )
    return SteeringState(
        version=edits.version,
        profile=active.profile,
        is_modified=active.is_modified,
        on=active.on,
        fingerprint=active.steering.fingerprint if active.steering else None,
        steering=active.request.model_dump(include=set(SteeringRequest.model_fields)),
        features=features,
        hooks=hooks,
        warnings=_warnings(features, hooks),
        undo=len(edits.undo_stack),
        redo=len(edits.redo_stack),
    )


async def _directions(state: State, active: ActiveSteeringState) -> Sequence[SteeringDirection]:
    """None while what it steers is not there: it sleeps, or the engine is being started again."""
    steering = active.steering
    if steering is None or state.asleep or any(tap.sae not in state.saes for tap in steering.by_sae):
        return ()
    try:
        found = await state.engine.query_features(ComputeDirections(id=state.engine.new_id("study"), steering=steering))
    except Unavailable:
        return ()
    assert isinstance(found, DirectionsComputed)
    return found.directions


def _steered_feature(state: State, active: ActiveSteeringState, feature: ProfileFeature) -> SteeredFeature:
    sae = state.saes.get(feature.sae or "")
    raw = _raw_strength(sae, feature, active.request.reference_norm) if sae else None
    largest = feature.max_act or (sae.max_acts.get(feature.index) if sae else None)
    return SteeredFeature(
        sae=feature.sae or "",
        index=feature.index,
        strength=feature.strength,
        unit=feature.unit,
        mode=feature.mode,
        label=feature.label,
        color=feature.color,
        muted=feature_key(feature) in active.muted,
        solo=feature_key(feature) in active.solo,
        is_heard=active.is_effective(feature),
        raw=raw,
        norm=None if raw is None or sae is None else raw / sae.facts.residual_norm,
        max_act=None if raw is None or not largest else raw / largest,
    )


def _raw_strength(sae: AttachedSae, feature: ProfileFeature, reference_norm: float | None) -> float | None:
    if feature.mode in ("scale", "ablate"):
        return None
    return feature_coefficients(sae, feature, reference_norm).alpha


def _steered_hook(attached: AttachedSae, direction: SteeringDirection) -> SteeredHook:
    norm = attached.facts.residual_norm
    length = direction.norm or None
    return SteeredHook(
        sae=direction.sae,
        hook_point=direction.hook_point,
        residual_norm=norm,
        delta_norm=length,
        delta_share=length / norm if length else None,
        varies=direction.varies,
    )


def _warnings(features: Sequence[SteeredFeature], hooks: Sequence[SteeredHook]) -> tuple[str, ...]:
    alone = [
        f"feature {one.index} of {one.sae}: {one.raw:g} is {abs(one.norm):.2g} × the residual norm"
        for one in features
        if one.is_heard and one.raw is not None and one.norm is not None and abs(one.norm) > USUAL_MAX_NORM
    ]
    together = [
        f"{hook.sae}: its features add up to {hook.delta_share:.2g} × the residual norm"
        for hook in hooks
        if hook.delta_share is not None and hook.delta_share > USUAL_MAX_NORM
    ]
    return tuple(f"{told}; answers usually fall apart beyond {USUAL_MAX_NORM:g}" for told in (*alone, *together))


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
