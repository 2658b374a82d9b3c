"""Grammars for llguidance from JSON schemas and forced tool calls (https://github.com/guidance-ai/llguidance).

JSON is generated without spaces between its parts, because a small model that may write spaces writes nothing else. The
limits prevent a schema from costing more than an answer.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
from llguidance import LLMatcher

from millm.errors import InvalidRequest
from millm.text.chat_template import Function
from millm.text.jinja_sandbox import one_line

MAX_SCHEMA_BYTES = 64 * 1024  # as JSON
MAX_SCHEMA_DEPTH = 32  # nested objects and lists
MAX_CALLS = 16  # calls in one answer: a small model without a limit would never stop
GUIDANCE_OPTIONS = {"whitespace_flexible": False, "coerce_one_of": True}
"""`oneOf` as `anyOf`: in practice its branches exclude each other (pydantic's discriminated unions)."""
_COMBINING_KEYWORDS = frozenset(("allOf", "if", "not", "dependentSchemas", "unevaluatedProperties", "$dynamicRef"))
_BRANCH_KEYWORDS = frozenset(("anyOf", "oneOf", "$ref"))
_MAPPING_KEYWORDS = frozenset(("properties", "$defs", "definitions"))
_LIST_KEYWORDS = frozenset(("anyOf", "oneOf", "prefixItems"))
_SINGLE_KEYWORDS = frozenset(("items", "additionalProperties"))
_UNLISTED_KEYWORDS = frozenset(("additionalProperties", "patternProperties", "propertyNames"))


def object_grammar() -> str:
    """Any JSON object."""
    return _grammar_from_schema({"type": "object"})


def schema_grammar(schema: object, param: str) -> str:
    """Grammar of a JSON schema. Raises InvalidRequest with the reason when it cannot be followed exactly."""
    checked = check_schema(schema, f"`{param}`", param)
    try:
        grammar = _grammar_from_schema(checked)
        reason = LLMatcher.validate_grammar(grammar)
    except ValueError as error:
        reason = str(error)
    except BaseException as panic:
        # The library panics where its own message would split a character, and that class cannot be imported.
        if type(panic).__name__ != "PanicException":
            raise
        reason = "it is not a JSON schema"
    if reason:
        raise InvalidRequest(f"the JSON schema in `{param}` cannot be followed: {one_line(reason)}", param=param)
    return grammar


def call_grammar(functions: Sequence[Function], *, parallel: bool) -> str:
    """Grammar of `{"name": …, "arguments": …}` for any of the functions, or of a list of such calls when `parallel`.

    Each schema stays a document of its own, so that its `$ref`s resolve.
    """
    if len(msgspec.json.encode([function.schema for function in functions])) > MAX_SCHEMA_BYTES:
        raise InvalidRequest(
            f"`tools` of which one must be called may have {MAX_SCHEMA_BYTES // 1024} KiB of schemas together.",
            param="tools",
        )
    for function in functions:
        schema_grammar(function.schema, "tools")
    start = f'"[" call ("," call){{0,{MAX_CALLS - 1}}} "]"' if parallel else "call"
    rules = [f"start: {start}", "call: " + " | ".join(f"call_{index}" for index in range(len(functions)))]
    for index, function in enumerate(functions):
        start_of_call = msgspec.json.encode(f'{{"name":"{function.name}","arguments":').decode()
        rules.append(f'call_{index}: {start_of_call} arguments_{index} "}}"')
        rules.append(f"arguments_{index}: %json {_encode_schema(function.schema)}")
    return str(LLMatcher.grammar_from_lark("\n".join(rules)))


def arguments_grammar(function: Function) -> str:
    """Grammar of the arguments of one function."""
    return schema_grammar(function.schema, "tools")


def check_schema(schema: object, name: str, param: str) -> dict[str, Any]:
    """The schema, checked. Raises InvalidRequest when it is not an object, too deep or too large."""
    if not isinstance(schema, dict):
        raise InvalidRequest(f"the JSON schema in {name} must be an object, such as {{}} for any value.", param=param)
    if _is_deeper_than(schema, MAX_SCHEMA_DEPTH):
        raise InvalidRequest(f"the JSON schema in {name} is nested deeper than {MAX_SCHEMA_DEPTH} levels.", param=param)
    if len(msgspec.json.encode(schema)) > MAX_SCHEMA_BYTES:
        raise InvalidRequest(f"the JSON schema in {name} is larger than {MAX_SCHEMA_BYTES // 1024} KiB.", param=param)
    return schema


def _grammar_from_schema(schema: dict[str, Any]) -> str:
    return str(LLMatcher.grammar_from_json_schema(_encode_schema(schema)))


def _encode_schema(schema: dict[str, Any]) -> str:
    return msgspec.json.encode({**close_objects(schema), "x-guidance": GUIDANCE_OPTIONS}).decode()


def _is_deeper_than(value: object, levels: int) -> bool:
    """Measured level by level, without recursion."""
    level = [value]
    for _ in range(levels):
        level = [child for parent in level for child in _children(parent)]
        if not level:
            return False
    return True


def _children(value: object) -> list[object]:
    children = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [child for child in children if isinstance(child, dict | list)]


def close_objects(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema with `additionalProperties: false` on every object that lists its properties.

    JSON schema allows unlisted properties, and a small model that may invent properties does so until its answer is cut
    off. Every answer that obeys the closed schema obeys the open one (llama.cpp's grammars do the same). Schemas whose
    parts add up (`allOf`, properties beside `anyOf`) stay unchanged: another part lists what one part does not.
    """
    return schema if any(map(_combines_subschemas, _walk_subschemas(schema))) else _close_subschema(schema)


def _close_subschema(subschema: dict[str, Any]) -> dict[str, Any]:
    closed = {keyword: _close_keyword_value(keyword, value) for keyword, value in subschema.items()}
    return {**closed, "additionalProperties": False} if _is_open(subschema) else closed


def _close_keyword_value(keyword: str, value: Any) -> Any:
    if keyword in _MAPPING_KEYWORDS and isinstance(value, dict):
        return {name: _close_subschema(part) if isinstance(part, dict) else part for name, part in value.items()}
    if keyword in _LIST_KEYWORDS and isinstance(value, list):
        return [_close_subschema(part) if isinstance(part, dict) else part for part in value]
    return _close_subschema(value) if keyword in _SINGLE_KEYWORDS and isinstance(value, dict) else value


def _is_open(subschema: dict[str, Any]) -> bool:
    """Whether an object lists its properties, all required ones among them, and has no rule for others."""
    listed, required = subschema.get("properties"), subschema.get("required", [])
    if not isinstance(listed, dict) or not isinstance(required, list) or subschema.keys() & _UNLISTED_KEYWORDS:
        return False
    return all(isinstance(name, str) and name in listed for name in required)


def _combines_subschemas(subschema: dict[str, Any]) -> bool:
    return bool(subschema.keys() & _COMBINING_KEYWORDS) or (
        "properties" in subschema and bool(subschema.keys() & _BRANCH_KEYWORDS)
    )


def _walk_subschemas(schema: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The schema and all schemas within it."""
    yield schema
    for keyword, value in schema.items():
        parts = value.values() if keyword in _MAPPING_KEYWORDS and isinstance(value, dict) else []
        parts = value if keyword in _LIST_KEYWORDS and isinstance(value, list) else parts
        parts = [value] if keyword in _SINGLE_KEYWORDS else parts
        for part in parts:
            if isinstance(part, dict):
                yield from _walk_subschemas(part)
