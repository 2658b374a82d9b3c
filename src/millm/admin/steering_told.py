"""What steers the server, told in every unit: each knob raw, × norm and × its maximum, and what they add up to."""

from collections.abc import Sequence

from millm.engine.messages import Direction, Directions, DirectionsFound
from millm.errors import Unavailable
from millm.profiles.active import Active, knob_of
from millm.profiles.contract import ProfileFeature, SteeringRequest
from millm.profiles.resolving import coefficients_of
from millm.state import AttachedSae, State
from millm.status import SteeredFeature, SteeredHook, SteeringState

USUAL = 1.0
"""Beyond this multiple of the residual norm answers usually fall apart."""


async def steering_told(state: State) -> SteeringState:
    """Asks the engine how long the vectors are that are added, between two of its steps."""
    active, edits = state.active, state.edits
    if active is None:
        return SteeringState(
            version=edits.version, profile=None, is_modified=False, on=True, fingerprint=None, steering=None,
            undo=len(edits.done), redo=len(edits.undone),
        )  # fmt: skip
    features = tuple(_feature(state, active, one) for one in active.asked.features)
    hooks = tuple(_hook(state.saes[one.sae], one) for one in await _directions(state, active) if one.sae in state.saes)
    return SteeringState(
        version=edits.version,
        profile=active.profile,
        is_modified=active.is_modified,
        on=active.on,
        fingerprint=active.steering.fingerprint if active.steering else None,
        steering=active.asked.model_dump(include=set(SteeringRequest.model_fields)),
        features=features,
        hooks=hooks,
        warnings=_warnings(features, hooks),
        undo=len(edits.done),
        redo=len(edits.undone),
    )


async def _directions(state: State, active: Active) -> Sequence[Direction]:
    """None while what it steers is not there: it sleeps, or the engine is being started again."""
    steering = active.steering
    if steering is None or state.asleep or any(tap.sae not in state.saes for tap in steering.taps):
        return ()
    try:
        found = await state.engine.study(Directions(id=state.engine.new_id("study"), steering=steering))
    except Unavailable:
        return ()
    assert isinstance(found, DirectionsFound)
    return found.directions


def _feature(state: State, active: Active, feature: ProfileFeature) -> SteeredFeature:
    sae = state.saes.get(feature.sae or "")
    raw = _raw(sae, feature, active.asked.reference_norm) if sae else None
    largest = feature.max_act or (sae.max_acts.get(feature.index) if sae else None)
    return SteeredFeature(
        sae=feature.sae or "",
        index=feature.index,
        strength=feature.strength,
        unit=feature.unit,
        mode=feature.mode,
        label=feature.label,
        color=feature.color,
        muted=knob_of(feature) in active.muted,
        solo=knob_of(feature) in active.solo,
        is_heard=active.is_heard(feature),
        raw=raw,
        norm=None if raw is None or sae is None else raw / sae.facts.residual_norm,
        max_act=None if raw is None or not largest else raw / largest,
    )


def _raw(sae: AttachedSae, feature: ProfileFeature, reference_norm: float | None) -> float | None:
    if feature.mode in ("scale", "ablate"):
        return None
    return coefficients_of(sae, feature, reference_norm).alpha


def _hook(attached: AttachedSae, direction: Direction) -> SteeredHook:
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
        if one.is_heard and one.raw is not None and one.norm is not None and abs(one.norm) > USUAL
    ]
    together = [
        f"{hook.sae}: its features add up to {hook.delta_share:.2g} × the residual norm"
        for hook in hooks
        if hook.delta_share is not None and hook.delta_share > USUAL
    ]
    return tuple(f"{told}; answers usually fall apart beyond {USUAL:g}" for told in (*alone, *together))
