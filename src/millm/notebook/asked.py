"""What a block is given, checked as the server checks a request's body: the same fields, limits and refusals."""

from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from millm.errors import InvalidSteering
from millm.notebook.sae import SAE
from millm.openai.validation import sentence
from millm.profiles.contract import SteeringRequest

Model = TypeVar("Model", bound=BaseModel)

Features = Mapping[int, float] | Iterable[Mapping[str, Any]]
"""`{index: strength}`, or the API's objects: `[{"index": 135, "strength": 0.2, "unit": "norm", "mode": "clamp"}]`."""


def steering(sae: SAE, features: Features, **fields: Any) -> SteeringRequest:
    """Raises InvalidSteering."""
    asked = checked(SteeringRequest, {"features": _objects(features), **fields})
    if any(feature.unit == "norm" for feature in asked.features) and sae.residual_norm is None:
        raise InvalidSteering(
            "unit 'norm' needs the residual norm at this hook: call `sae.measure(model, tokenizer)` first, or set"
            " `sae.residual_norm`"
        )
    return asked


def _objects(features: Features) -> Any:
    if isinstance(features, Mapping):
        return [{"index": index, "strength": strength} for index, strength in features.items()]
    return listed(features)


def listed(given: Any) -> Any:
    """What is no list of any kind stays as it is, to be refused by name."""
    return list(given) if isinstance(given, Iterable) else given


def checked(kind: type[Model], given: Mapping[str, Any]) -> Model:
    """Raises InvalidSteering naming the field."""
    try:
        return kind.model_validate(given)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        raise InvalidSteering(sentence({**first, "loc": ("body", *first["loc"])})) from error
