"""A steering with all of its strengths multiplied."""

from millm.errors import InvalidSteering
from millm.profiles.resolve import resolve_steering
from millm.profiles.schema import SteeringRequest
from millm.sae.steering import Steering
from millm.state import State

SCALABLE_MODES = ("add", "clamp", "min_clamp")
"""The modes whose strength is an amount."""


def scale_strengths(request: SteeringRequest, multiple: float) -> SteeringRequest:
    """Raises InvalidSteering for a mode that has no strength to multiply."""
    for one in request.features:
        if one.mode not in SCALABLE_MODES:
            raise InvalidSteering(
                f"feature {one.index}: mode {one.mode!r} has no strength to multiply; use 'add', 'clamp' or"
                " 'min_clamp', or leave the feature out",
                param="steering.features",
            )
    features = tuple(one.model_copy(update={"strength": one.strength * multiple}) for one in request.features)
    return request.model_copy(update={"features": features})


def resolve_scaled(state: State, request: SteeringRequest, multiple: float) -> Steering | None:
    """For the engine; None at 0, which is the base model whatever the mode. Raises InvalidSteering."""
    steering = resolve_steering(state.saes, scale_strengths(request, multiple))
    return steering if multiple else None
