"""Objects of a JSON schema that list their properties, closed to any others.

JSON schema lets an object have what nobody listed, unless it says otherwise; a small model that may invent properties
does nothing else until its answer is cut off. What obeys the closed schema obeys the open one, so nothing is promised
less (llama.cpp's grammars do the same). Schemas whose parts add up (`allOf`, properties beside `anyOf`) are left alone:
there, one part's listed properties are another's unlisted ones.
"""

from collections.abc import Iterator
from typing import Any

_ADDS_UP = frozenset(("allOf", "if", "not", "dependentSchemas", "unevaluatedProperties", "$dynamicRef"))
_CHOICES = frozenset(("anyOf", "oneOf", "$ref"))
_NAMED = frozenset(("properties", "$defs", "definitions"))
_LISTED = frozenset(("anyOf", "oneOf", "prefixItems"))
_SINGLE = frozenset(("items", "additionalProperties"))
_SAYS_SO = frozenset(("additionalProperties", "patternProperties", "propertyNames"))


def closed(schema: dict[str, Any]) -> dict[str, Any]:
    """The same schema, narrower where that is certain to leave something."""
    return schema if any(map(_adds_up, _parts(schema))) else _closed(schema)


def _closed(part: dict[str, Any]) -> dict[str, Any]:
    inside = {keyword: _each(keyword, value) for keyword, value in part.items()}
    return {**inside, "additionalProperties": False} if _is_open(part) else inside


def _each(keyword: str, value: Any) -> Any:
    if keyword in _NAMED and isinstance(value, dict):
        return {name: _closed(part) if isinstance(part, dict) else part for name, part in value.items()}
    if keyword in _LISTED and isinstance(value, list):
        return [_closed(part) if isinstance(part, dict) else part for part in value]
    return _closed(value) if keyword in _SINGLE and isinstance(value, dict) else value


def _is_open(part: dict[str, Any]) -> bool:
    """It lists properties and says of no others whether they may come; those that have to come are all listed."""
    listed, required = part.get("properties"), part.get("required", [])
    if not isinstance(listed, dict) or not isinstance(required, list) or part.keys() & _SAYS_SO:
        return False
    return all(isinstance(name, str) and name in listed for name in required)


def _adds_up(part: dict[str, Any]) -> bool:
    return bool(part.keys() & _ADDS_UP) or ("properties" in part and bool(part.keys() & _CHOICES))


def _parts(schema: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Every schema in it, itself first."""
    yield schema
    for keyword, value in schema.items():
        inside = value.values() if keyword in _NAMED and isinstance(value, dict) else []
        inside = value if keyword in _LISTED and isinstance(value, list) else inside
        inside = [value] if keyword in _SINGLE else inside
        for part in inside:
            if isinstance(part, dict):
                yield from _parts(part)
