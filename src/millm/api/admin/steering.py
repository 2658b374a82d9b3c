"""`/api/steering`: the active steering, with every strength in every unit, and its changes, undo and redo."""

from collections.abc import Iterable, Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from millm.api.admin.openapi import struct_response
from millm.api.admin.route import AdminRoute, ServerState, json_response
from millm.api.dependencies import requires
from millm.engine.messages import ComputeDirections, DirectionsComputed, SteeringDirection
from millm.errors import InvalidRequest, SteeringOutdated, Unavailable
from millm.lifecycle import steering as lifecycle
from millm.lifecycle.changes import wait_until_started
from millm.lifecycle.selection import build_active, resolve_active
from millm.loaded import AttachedSae
from millm.profiles.active import ActiveSteeringState, FeatureKey, feature_key
from millm.profiles.resolve import feature_coefficients, resolve_sae_name
from millm.profiles.schema import MAX_FEATURES, Index, ProfileFeature, SteeringRequest
from millm.sae.steering import Positions, Skip
from millm.state import State
from millm.status import SteeredFeature, SteeredHook, SteeringState

USUAL_MAX_NORM = 1.0
"""Multiple of the residual norm beyond which answers usually become incoherent."""


async def steering_state(state: State) -> SteeringState:
    """The active steering; the norms of the added vectors come from the engine."""
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
    """The added vectors; empty while the model or an SAE is not available."""
    steering = active.steering
    if steering is None or state.asleep or any(tap.sae not in state.saes for tap in steering.by_sae):
        return ()
    try:
        command = ComputeDirections(id=state.engine.new_id("study"), steering=steering)
        computed = await state.engine.query_features(command)
    except Unavailable:
        return ()
    assert isinstance(computed, DirectionsComputed)
    return computed.directions


def _steered_feature(state: State, active: ActiveSteeringState, feature: ProfileFeature) -> SteeredFeature:
    sae = state.saes.get(feature.sae or "")
    has_unit = feature.mode not in ("scale", "ablate")
    raw = feature_coefficients(sae, feature, active.request.reference_norm).alpha if sae and has_unit else None
    max_act = feature.max_act or (sae.max_acts.get(feature.index) if sae else None)
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
        max_act=None if raw is None or not max_act else raw / max_act,
    )


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
    return tuple(f"{text}; answers usually fall apart beyond {USUAL_MAX_NORM:g}" for text in (*alone, *together))


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
    """A changed or added feature; omitted fields stay unchanged."""

    muted: Annotated[bool | None, Field(strict=True, description="Does nothing for now.")] = None
    solo: Annotated[bool | None, Field(strict=True, description="While any is, only these do something.")] = None


class FeatureRef(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    index: Index
    sae: Annotated[str | None, Field(max_length=512)] = None


class SteeringChange(BaseModel):
    """A partial change of the steering, applied completely or not at all."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: Version = None
    on: Annotated[bool | None, Field(strict=True, description="The master switch.")] = None
    features: Annotated[tuple[FeatureChange, ...], Field(max_length=MAX_FEATURES)] = ()
    remove: Annotated[tuple[FeatureRef, ...], Field(max_length=MAX_FEATURES)] = ()
    positions: Positions | None = None
    skip: Skip | None = None
    skip_constrained: Annotated[bool | None, Field(strict=True)] = None


class VersionBody(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    version: Version = None


@router.get("", dependencies=[requires("monitor")], responses=struct_response(SteeringState))
async def get_steering(state: ServerState) -> Response:
    """The active steering, with every strength in every unit."""
    return json_response(await steering_state(state))


@router.put("", dependencies=[requires("admin")], responses=struct_response(SteeringState))
async def put_steering(request: Request, state: ServerState, body: SteeringBody | None = None) -> Response:
    """Activate a steering or a profile; null and {} are the base model.

    Running answers that follow the active steering change from their next token.
    """
    if not await request.body():
        raise InvalidRequest("The body is missing; send a steering, a `profile`, or null for the base model.")
    await _check_version(state, body.version if body else None)
    steering = SteeringRequest.model_validate(body.model_dump(exclude={"profile", "version"})) if body else None
    await lifecycle.activate(state, resolve_active(state, steering=steering, profile=body.profile if body else None))
    return json_response(await steering_state(state))


@router.patch("", dependencies=[requires("admin")], responses=struct_response(SteeringState))
async def patch_steering(state: ServerState, body: SteeringChange) -> Response:
    """Change, add, mute or remove features, or set the master switch; the rest stays unchanged."""
    await _check_version(state, body.version)
    await lifecycle.activate(state, _apply_change(state, state.active, body))
    return json_response(await steering_state(state))


@router.post("/undo", dependencies=[requires("admin")], responses=struct_response(SteeringState))
async def undo_steering(state: ServerState, body: VersionBody | None = None) -> Response:
    """Undo the last change of the steering, up to 50 times."""
    await _check_version(state, body.version if body else None)
    await lifecycle.undo(state)
    return json_response(await steering_state(state))


@router.post("/redo", dependencies=[requires("admin")], responses=struct_response(SteeringState))
async def redo_steering(state: ServerState, body: VersionBody | None = None) -> Response:
    """Redo the change undone last."""
    await _check_version(state, body.version if body else None)
    await lifecycle.redo(state)
    return json_response(await steering_state(state))


async def _check_version(state: State, version: int | None) -> None:
    """Raises SteeringOutdated."""
    await wait_until_started(state)
    if version is not None and version != state.edits.version:
        raise SteeringOutdated(
            f"the steering is at version {state.edits.version}, and this change is for {version}; read it again first"
        )


def _apply_change(
    state: State, current: ActiveSteeringState | None, change: SteeringChange
) -> ActiveSteeringState | None:
    """Raises InvalidSteering and what `resolve_active` raises."""
    current = current or ActiveSteeringState(None, SteeringRequest())
    before = current.request
    features = {feature_key(feature): feature for feature in before.features}
    for ref in change.remove:
        if features.pop(_feature_key(state, ref), None) is None:
            raise InvalidRequest(f"`remove`: feature {ref.index} is not steered.", param="remove")
    changes = [(_feature_key(state, one), one) for one in change.features]
    for key, one in changes:
        features[key] = _apply_feature_change(features.get(key), one, key)
    fields: dict[str, Any] = change.model_dump(include={"positions", "skip", "skip_constrained"}, exclude_unset=True)
    fields = {name: value for name, value in fields.items() if value is not None or name == "skip"}
    request = before.model_copy(update={"features": tuple(features.values()), **fields})
    new = ActiveSteeringState(
        current.profile,
        request,
        muted=_with_flags(current.muted, ((key, one.muted) for key, one in changes)) & features.keys(),
        solo=_with_flags(current.solo, ((key, one.solo) for key, one in changes)) & features.keys(),
        on=current.on if change.on is None else change.on,
        is_modified=current.profile is not None and (request != before or current.is_modified),
    )
    return build_active(state, new)


def _feature_key(state: State, feature: FeatureChange | FeatureRef) -> FeatureKey:
    return resolve_sae_name(state.saes, feature.sae, f"feature {feature.index}"), feature.index


def _apply_feature_change(before: ProfileFeature | None, change: FeatureChange, key: FeatureKey) -> ProfileFeature:
    given = change.model_dump(exclude_unset=True, exclude={"muted", "solo", "sae"})
    known = before.model_dump() if before else {}
    return ProfileFeature.model_validate({**known, **given, "sae": key[0]})


def _with_flags(keys: frozenset[FeatureKey], flags: Iterable[tuple[FeatureKey, bool | None]]) -> frozenset[FeatureKey]:
    """`keys` with those flagged True added, and those flagged False removed."""
    for key, flag in flags:
        if flag is not None:
            keys = keys | {key} if flag else keys - {key}
    return keys
