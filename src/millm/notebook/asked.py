"""What a block is given, checked as the server checks a request's body: the same fields, limits and refusals."""

from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from millm.errors import InvalidSteering
from millm.notebook.sae import SAE
from millm.profiles.schema import SteeringRequest
from millm.protocol.errors import error_sentence

RequestModel = TypeVar("RequestModel", bound=BaseModel)

Features = Mapping[int, float] | Iterable[Mapping[str, Any]]
"""`{index: strength}`, or the API's objects: `[{"index": 135, "strength": 0.2, "unit": "norm", "mode": "clamp"}]`."""


def parse_steering(sae: SAE, features: Features, **fields: Any) -> SteeringRequest:
    """Raises InvalidSteering."""
    asked = validate(SteeringRequest, {"features": _feature_objects(features), **fields})
    if any(feature.unit == "norm" for feature in asked.features) and sae.residual_norm is None:
        raise InvalidSteering(
            "unit 'norm' needs the residual norm at this hook: call `sae.measure(model, tokenizer)` first, or set"
            " `sae.residual_norm`"
        )
    return asked


def _feature_objects(features: Features) -> Any:
    if isinstance(features, Mapping):
        return [{"index": index, "strength": strength} for index, strength in features.items()]
    return as_list(features)


def as_list(value: Any) -> Any:
    """What is no list of any kind stays as it is, to be refused by name."""
    return list(value) if isinstance(value, Iterable) else value


def validate(model_type: type[RequestModel], values: Mapping[str, Any]) -> RequestModel:
    """Raises InvalidSteering naming the field."""
    try:
        return model_type.model_validate(values)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        raise InvalidSteering(error_sentence({**first, "loc": ("body", *first["loc"])})) from error
