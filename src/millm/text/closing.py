"""Objects of a JSON schema that list their properties, closed to any others.

JSON schema lets an object have what nobody listed, unless it says otherwise; a small model that may invent properties
does nothing else until its answer is cut off. What obeys the closed schema obeys the open one, so nothing is promised
less (llama.cpp's grammars do the same). Schemas whose parts add up (`allOf`, properties beside `anyOf`) are left alone:
there, one part's listed properties are another's unlisted ones.
"""

from collections.abc import Iterator
from typing import Any

_COMBINING_KEYWORDS = frozenset(("allOf", "if", "not", "dependentSchemas", "unevaluatedProperties", "$dynamicRef"))
_BRANCH_KEYWORDS = frozenset(("anyOf", "oneOf", "$ref"))
_MAPPING_KEYWORDS = frozenset(("properties", "$defs", "definitions"))
_LIST_KEYWORDS = frozenset(("anyOf", "oneOf", "prefixItems"))
_SINGLE_KEYWORDS = frozenset(("items", "additionalProperties"))
_UNLISTED_KEYWORDS = frozenset(("additionalProperties", "patternProperties", "propertyNames"))


def close_objects(schema: dict[str, Any]) -> dict[str, Any]:
    """The same schema, narrower where that is certain to leave something."""
    return schema if any(map(_combines_subschemas, _walk_subschemas(schema))) else _close_subschema(schema)


def _close_subschema(subschema: dict[str, Any]) -> dict[str, Any]:
    inside = {keyword: _close_keyword_value(keyword, value) for keyword, value in subschema.items()}
    return {**inside, "additionalProperties": False} if _is_open(subschema) else inside


def _close_keyword_value(keyword: str, value: Any) -> Any:
    if keyword in _MAPPING_KEYWORDS and isinstance(value, dict):
        return {name: _close_subschema(part) if isinstance(part, dict) else part for name, part in value.items()}
    if keyword in _LIST_KEYWORDS and isinstance(value, list):
        return [_close_subschema(part) if isinstance(part, dict) else part for part in value]
    return _close_subschema(value) if keyword in _SINGLE_KEYWORDS and isinstance(value, dict) else value


def _is_open(subschema: dict[str, Any]) -> bool:
    """It lists properties and says of no others whether they may come; those that have to come are all listed."""
    listed, required = subschema.get("properties"), subschema.get("required", [])
    if not isinstance(listed, dict) or not isinstance(required, list) or subschema.keys() & _UNLISTED_KEYWORDS:
        return False
    return all(isinstance(name, str) and name in listed for name in required)


def _combines_subschemas(subschema: dict[str, Any]) -> bool:
    return bool(subschema.keys() & _COMBINING_KEYWORDS) or (
        "properties" in subschema and bool(subschema.keys() & _BRANCH_KEYWORDS)
    )


def _walk_subschemas(schema: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Every schema in it, itself first."""
    yield schema
    for keyword, value in schema.items():
        inside = value.values() if keyword in _MAPPING_KEYWORDS and isinstance(value, dict) else []
        inside = value if keyword in _LIST_KEYWORDS and isinstance(value, list) else inside
        inside = [value] if keyword in _SINGLE_KEYWORDS else inside
        for part in inside:
            if isinstance(part, dict):
                yield from _walk_subschemas(part)
