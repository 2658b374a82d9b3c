"""What steers the server, told in every unit: each knob raw, × norm and × its maximum, and what they add up to."""

from collections.abc import Sequence

from millm.engine.messages import ComputeDirections, DirectionsComputed, SteeringDirection
from millm.errors import Unavailable
from millm.loaded import AttachedSae
from millm.profiles.active import ActiveSteeringState, feature_key
from millm.profiles.resolve import feature_coefficients
from millm.profiles.schema import ProfileFeature, SteeringRequest
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
