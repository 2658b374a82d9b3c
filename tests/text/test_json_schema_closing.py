"""A closed schema is narrower than the original, and never empty."""

import json
from typing import Any

import jsonschema_rs
import llguidance
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from millm.text.json_schema import close_objects, schema_grammar
from tests.text.grammar_sampling import sample_text

NAMES = st.text("abc", min_size=1, max_size=2)
LEAVES: list[dict[str, Any]] = [
    {"type": "integer", "minimum": 0, "maximum": 9},
    {"enum": ["x", {"properties": {}}]},
    {"const": {"properties": {"a": 1}, "required": ["b"]}},
]
OPEN = {"type": "object", "properties": {"a": {"type": "boolean"}}, "required": ["a"]}


def _object(parts: tuple[dict[str, Any], bool]) -> dict[str, Any]:
    properties, required = parts
    return {"type": "object", "properties": properties, "required": list(properties) if required else []}


def _nested(inside: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[dict[str, Any]]:
    return (
        st.tuples(st.dictionaries(NAMES, inside, max_size=3), st.booleans()).map(_object)
        | inside.map(lambda items: {"type": "array", "items": items, "maxItems": 2})
        | st.lists(inside, min_size=1, max_size=2).map(lambda choices: {"anyOf": choices})
    )


schemas = st.recursive(st.sampled_from(LEAVES), _nested, max_leaves=6)


@settings(max_examples=150, deadline=None)
@given(schema=schemas, seed=st.integers(0, 999))
def test_generated_json_is_valid_for_the_original_schema(
    tokens: llguidance.LLTokenizer, schema: dict[str, Any], seed: int
) -> None:
    text = sample_text(tokens, schema_grammar(schema, "x"), seed)
    assert jsonschema_rs.is_valid(schema, json.loads(text)), (schema, text)


def test_no_properties_are_invented() -> None:
    assert close_objects(OPEN) == {**OPEN, "additionalProperties": False}
    inside = {"type": "array", "items": OPEN}
    assert close_objects({"properties": {"list": inside}, "$defs": {"d": OPEN}}) == {
        "properties": {"list": {"type": "array", "items": close_objects(OPEN)}},
        "$defs": {"d": close_objects(OPEN)},
        "additionalProperties": False,
    }


@pytest.mark.parametrize(
    "schema",
    [
        {**OPEN, "additionalProperties": True},
        {**OPEN, "additionalProperties": {"type": "integer"}},
        {**OPEN, "patternProperties": {"^x": {}}},
        {"type": "object"},
        {**OPEN, "required": ["elsewhere"]},
        {"allOf": [OPEN, {"properties": {"b": {}}}]},
        {**OPEN, "allOf": [{"properties": {"b": {}}, "required": ["b"]}]},
        {"allOf": [{"$ref": "#/$defs/one"}, {"$ref": "#/$defs/other"}], "$defs": {"one": OPEN, "other": OPEN}},
        {**OPEN, "anyOf": [{"properties": {"b": {}}}, {"properties": {"c": {}}}]},
        {"properties": {"deep": {**OPEN, "oneOf": [{"required": ["a"]}]}, "other": OPEN}},
        {"const": OPEN},
        {"properties": 5},
        {**OPEN, "required": "a"},
    ],
    ids=str,
)
def test_explicit_or_combined_schemas_are_unchanged(schema: dict[str, Any]) -> None:
    assert close_objects(schema) == schema
