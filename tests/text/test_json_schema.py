"""Grammars allow exactly what the schema describes; unsupported schemas are rejected with the reason."""

import json
from typing import Any

import jsonschema_rs
import llguidance
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from millm.errors import InvalidRequest
from millm.text.chat_template import Function
from millm.text.json_schema import (
    MAX_SCHEMA_BYTES,
    MAX_SCHEMA_DEPTH,
    arguments_grammar,
    call_grammar,
    object_grammar,
    schema_grammar,
)
from tests.text.grammar_sampling import sample_text

LEAVES: list[dict[str, Any]] = [
    {"type": "integer", "minimum": -5, "maximum": 12},
    {"type": "string", "maxLength": 4},
    {"type": "boolean"},
    {"type": "null"},
    {"enum": ["a", 5, None]},
    {"const": {"x": [1]}},
    {"type": "string", "pattern": "^[ab]{1,3}$"},
]


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


def _nested(inside: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[dict[str, Any]]:
    names = st.text("abé", min_size=1, max_size=3)
    return (
        st.dictionaries(names, inside, max_size=3).map(_object)
        | inside.map(lambda items: {"type": "array", "items": items, "maxItems": 2})
        | st.lists(inside, min_size=1, max_size=2).map(lambda choices: {"anyOf": choices})
    )


schemas = st.recursive(st.sampled_from(LEAVES), _nested, max_leaves=5)


def obeys(tokens: llguidance.LLTokenizer, grammar: str, text: str) -> bool:
    """The grammar allows exactly this text."""
    matcher = llguidance.LLMatcher(tokens, grammar)
    assert not matcher.is_error(), matcher.get_error()
    ids = tokens.tokenize_str(text)
    return matcher.try_consume_tokens(ids) == len(ids) and matcher.is_accepting()


@settings(max_examples=200, deadline=None)
@given(schema=schemas, seed=st.integers(0, 2**20))
def test_text_of_the_grammar_is_valid_for_the_schema(tokens, schema, seed) -> None:
    text = sample_text(tokens, schema_grammar(schema, "response_format"), seed)
    assert jsonschema_rs.is_valid(schema, json.loads(text)), (text, schema)


def test_any_object_is_an_object_and_nothing_else(tokens) -> None:
    for text in ("{}", '{"a":[1,{"b":null}]}'):
        assert obeys(tokens, object_grammar(), text)
    for text in ("[]", "5", '"a"', "null", '{ "a":1}'):
        assert not obeys(tokens, object_grammar(), text)


def test_an_empty_schema_allows_any_value(tokens) -> None:
    for text in ("{}", "[]", "5", "null", '"x"'):
        assert obeys(tokens, schema_grammar({}, "response_format"), text)


NODE = {"$defs": {"node": {"type": "object", "properties": {"next": {"$ref": "#/$defs/node"}}}}, "$ref": "#/$defs/node"}
LINKED = Function("walk", parameters={**NODE, "type": "object"})
WEATHER = Function(
    "get_weather",
    parameters={
        "properties": {"city": {"$ref": "#/$defs/city"}},
        "required": ["city"],
        "additionalProperties": False,
        "$defs": {"city": {"enum": ["Paris", "Rome"]}},
    },
)
TIME = Function("get_time")


def test_a_forced_call_is_of_one_of_the_functions_with_its_own_arguments(tokens) -> None:
    grammar = call_grammar([WEATHER, TIME, LINKED], parallel=False)
    assert obeys(tokens, grammar, '{"name":"get_weather","arguments":{"city":"Rome"}}')
    assert obeys(tokens, grammar, '{"name":"get_time","arguments":{}}')
    assert obeys(tokens, grammar, '{"name":"walk","arguments":{"next":{"next":{}}}}')
    for wrong in (
        '{"name":"get_time","arguments":{"city":"Rome"}}',
        '{"name":"get_weather","arguments":{"city":"Oslo"}}',
        '{"name":"get","arguments":{}}',
        '[{"name":"get_time","arguments":{}}]',
    ):
        assert not obeys(tokens, grammar, wrong)


def test_several_forced_calls_are_a_list_of_one_or_more(tokens) -> None:
    grammar, call = call_grammar([WEATHER, TIME], parallel=True), '{"name":"get_time","arguments":{}}'
    assert obeys(tokens, grammar, f"[{call}]")
    assert obeys(tokens, grammar, f"[{','.join([call] * 16)}]")
    for wrong in ("[]", call, f"[{','.join([call] * 17)}]"):
        assert not obeys(tokens, grammar, wrong)


def test_the_arguments_of_a_named_function_are_an_object_alone(tokens) -> None:
    assert obeys(tokens, arguments_grammar(WEATHER), '{"city":"Paris"}')
    assert not obeys(tokens, arguments_grammar(TIME), '{"a":1}')
    assert obeys(tokens, arguments_grammar(Function("any", parameters={"type": "object"})), '{"a":1}')


def _deep(levels: int) -> dict[str, Any]:
    return {"type": "object"} if levels == 1 else {"properties": {"a": _deep(levels - 2)}}


@pytest.mark.parametrize(
    ("schema", "complaint"),
    [
        (True, "must be an object"),
        ("x", "must be an object"),
        ([{}], "must be an object"),
        (5, "must be an object"),
        ({"type": "strin"}, "Invalid type: strin"),
        ({"$ref": "#/nowhere"}, "does not exist"),
        ({"$ref": "https://example.org/schema"}, "retrieving it failed"),
        ({"type": "string", "pattern": "(?=a)b"}, "look-around"),
        ({"enum": []}, "Unsatisfiable"),
        ({"type": "object", "if": {}}, "if"),
        ({"enum": ["x" * MAX_SCHEMA_BYTES]}, "larger than 64 KiB"),
        (_deep(MAX_SCHEMA_DEPTH + 1), "deeper than 32 levels"),
        (_deep(901), "deeper than 32 levels"),
    ],
)
def test_unsupported_schemas_are_rejected_in_one_line(schema: Any, complaint: str) -> None:
    with pytest.raises(InvalidRequest, match=complaint) as refusal:
        schema_grammar(schema, "response_format")
    assert refusal.value.param == "response_format"
    assert "\n" not in refusal.value.message
    assert len(refusal.value.message) < 300


def test_schemas_of_forced_functions_have_a_joint_limit() -> None:
    wide = {"type": "object", "properties": {"a": {"enum": ["x" * 20_000]}}}
    functions = [Function(f"f{index}", parameters=wide) for index in range(4)]
    assert call_grammar(functions[:3], parallel=False)
    with pytest.raises(InvalidRequest, match="64 KiB of schemas together") as refusal:
        call_grammar(functions, parallel=False)
    assert refusal.value.param == "tools"


def test_a_discriminated_union_is_supported(tokens) -> None:
    def kind(name: str, of: str) -> dict[str, Any]:
        return _object({"kind": {"const": name}, "x": {"type": of}})

    union = {"oneOf": [kind("a", "integer"), kind("b", "boolean")], "discriminator": {"propertyName": "kind"}}
    grammar = schema_grammar(union, "response_format")
    assert obeys(tokens, grammar, '{"kind":"b","x":true}')
    assert not obeys(tokens, grammar, '{"kind":"a","x":true}')
    calling = call_grammar([Function("f", parameters=_object({"x": union}))], parallel=False)
    assert obeys(tokens, calling, '{"name":"f","arguments":{"x":{"kind":"a","x":5}}}')


def test_a_schema_of_the_maximum_depth_is_supported() -> None:
    assert schema_grammar(_deep(MAX_SCHEMA_DEPTH - 1), "response_format")


def test_a_function_with_an_unsupported_schema_is_rejected() -> None:
    wrong = Function("f", parameters={"properties": {"a": {"type": "strin"}}})
    for build in (lambda: call_grammar([TIME, wrong], parallel=True), lambda: arguments_grammar(wrong)):
        with pytest.raises(InvalidRequest, match="strin") as refusal:
            build()
        assert refusal.value.param == "tools"
