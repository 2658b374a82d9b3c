"""Invalid requests to `/v1/responses` get a 400 that names the field and the remedy."""

import httpx
import pytest
from starlette.testclient import TestClient

from tests.api.openai.app_without_model import without_model
from tests.api.openai.test_responses import CALLED, FLAT, PARTS, SCHEMA

SECRET = "Zanzibar"  # sent as the wrong value wherever that is possible
ASK = {"model": "m", "input": "hi"}
NAMED = {"type": "function", "name": "look_up"}


@pytest.fixture(scope="module")
def client() -> TestClient:
    return without_model()


def spoken(content: object, role: object = "user") -> dict[str, object]:
    return {"input": [{"role": role, "content": content}]}


def called(**change: object) -> dict[str, object]:
    call = {"type": "function_call", "call_id": "c", "name": "look_up", "arguments": "{}", **change}
    return {"input": [{"role": "user", "content": "hi"}, call]}


def schema(**change: object) -> dict[str, object]:
    return {"text": {"format": {"type": "json_schema", "name": "place", "schema": SCHEMA, **change}}}


INVALID = {
    "input missing": ({"input": None}, "input", "required"),
    "input a number": ({"input": 5}, "input", "string or a list"),
    "input empty": ({"input": []}, "input", "at least 1"),
    "input too long": ({"input": [{"role": "user", "content": ""}] * 2001}, "input", "at most 2000"),
    "only reasoning": ({"input": [{"type": "reasoning"}]}, "input", "no message"),
    "item a string": ({"input": [SECRET]}, "input.0", "object"),
    "type a number": ({"input": [{"type": 5}]}, "input.0", "object with a `type`"),
    "role": (spoken("hi", SECRET), "input.0", "user, assistant, system or developer"),
    "role tool": (spoken("hi", "tool"), "input.0", "user, assistant, system or developer"),
    "content missing": ({"input": [{"role": "user"}]}, "input.0", "`content`"),
    "content a number": (spoken(5), "input.0.content", "string or a list"),
    "part a string": (spoken([SECRET]), "input.0.content.0", "object"),
    "part without text": (spoken([{"type": "input_text"}]), "input.0.content.0", "needs a string `text`"),
    "call without id": (called(call_id=None), "input.1", "`call_id`"),
    "arguments an object": (called(arguments={}), "input.1", "strings"),
    "output missing": ({"input": [{"type": "function_call_output", "call_id": "c"}]}, "input.0", "`output`"),
    "output a number": (
        {"input": [{"type": "function_call_output", "call_id": "c", "output": 5}]},
        "input.0.output",
        "string or a list",
    ),
    "max_output_tokens": ({"max_output_tokens": 0}, "max_output_tokens", "greater than or equal to 1"),
    "temperature": ({"temperature": 2.1}, "temperature", "from 0 to 2"),
    "top_p": ({"top_p": -1}, "top_p", "from 0 to 1"),
    "top_logprobs": ({"top_logprobs": 21}, "top_logprobs", "from 0 to 20"),
    "n": ({"n": 2}, "n", "be 1"),
    "include": ({"include": SECRET}, "include", "list"),
    "format": ({"text": {"format": {"type": SECRET}}}, "text.format.type", "'json_schema'"),
    "schema missing": (schema(schema=None), "text.format", "`name` and `schema`"),
    "schema nameless": (schema(name=None), "text.format", "`name` and `schema`"),
    "schema's name": (schema(name=f"{SECRET}!"), "text.format.name", "pattern"),
    "schema a number": (schema(schema=5), "text.format", "must be an object"),
    "schema impossible": (schema(schema={"type": "nothing"}), "text.format", "cannot be followed"),
    "schema that the library stumbles over": (schema(schema={"required": "🙂" * 50}), "text.format", "not a JSON"),
    "verbosity": ({"text": {"verbosity": SECRET}}, "text.verbosity", "'low'"),
    "tools": ({"tools": SECRET}, "tools", "list"),
    "a tool of OpenAI's": ({"tools": [FLAT, {"type": "web_search"}]}, "tools.1.type", "only function tools"),
    "a custom tool": ({"tools": [{"type": "custom", "name": "a"}]}, "tools.0.type", "only function tools"),
    "a nested tool": ({"tools": [{"type": "function", "function": {"name": "a"}}]}, "tools.0.name", "required"),
    "tool's name": ({"tools": [{**FLAT, "name": "a b"}]}, "tools.0.name", "pattern"),
    "tool twice": ({"tools": [FLAT, FLAT]}, "tools", "two functions"),
    "tool's schema": (
        {"tools": [{**FLAT, "parameters": {"type": SECRET}}], "tool_choice": "required"},
        "tools",
        "object",
    ),
    "choice": ({"tool_choice": SECRET}, "tool_choice", "'auto' or 'none'"),
    "choice of nothing": ({"tool_choice": "required"}, "tool_choice", "with `tools`"),
    "choice nested": (
        {"tools": [FLAT], "tool_choice": {"type": "function", "function": {"name": "look_up"}}},
        "tool_choice",
        '{"type": "function", "name": …}',
    ),
    "choice of OpenAI's": ({"tool_choice": {"type": "web_search"}}, "tool_choice", "a function"),
    "choice unknown": ({"tools": [FLAT], "tool_choice": {**NAMED, "name": SECRET}}, "tool_choice", "not in `tools`"),
    "allowed": (
        {"tools": [FLAT], "tool_choice": {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "mcp"}]}},
        "tool_choice",
        "such functions",
    ),
    "parallel_tool_calls": ({"parallel_tool_calls": "no"}, "parallel_tool_calls", "boolean"),
    "truncation": ({"truncation": SECRET}, "truncation", "'disabled'"),
    "metadata": ({"metadata": {"a": 5}}, "metadata.a", "string"),
    "effort": ({"reasoning": {"effort": SECRET}}, "reasoning.effort", "'low'"),
    "stream": ({"stream": "yes"}, "stream", "boolean"),
    "steering": ({"steering": {"strength": 5}}, "steering.strength", "not permitted"),
    "model": ({"model": None}, "model", "required"),
}

UNSUPPORTED = {
    "an image": (spoken([{"type": "input_image", "image_url": SECRET}]), "input.0.content.0", "'input_image'"),
    "a file": (spoken([{"type": "input_file", "file_id": SECRET}]), "input.0.content.0", "'input_file'"),
    "an image as output": (
        {"input": [{"type": "function_call_output", "call_id": "c", "output": [{"type": "input_image"}]}]},
        "input.0.output.0",
        "'input_image'",
    ),
    "a search": ({"input": [{"type": "web_search_call", "id": SECRET}]}, "input.0", "'web_search_call'"),
    "a reference": ({"input": [{"type": "item_reference", "id": SECRET}]}, "input.0", "full conversation"),
    "an earlier response": ({"previous_response_id": SECRET}, "previous_response_id", "full conversation"),
    "a conversation": ({"conversation": {"id": SECRET}}, "conversation", "full conversation"),
    "in the background": ({"background": True}, "background", "`stream`"),
    "a prompt": ({"prompt": {"id": SECRET}}, "prompt", "`instructions` and `input`"),
}


def check(answer: httpx.Response, param: str, code: str, part: str) -> None:
    error = answer.json()["error"]
    assert (answer.status_code, error["type"], error["code"]) == (400, "invalid_request_error", code)
    assert error["param"] == param
    assert part in error["message"]
    assert SECRET not in answer.text


@pytest.mark.parametrize(("change", "param", "part"), INVALID.values(), ids=INVALID)
def test_invalid_field_is_named(client, change, param, part) -> None:
    check(client.post("/v1/responses", json={**ASK, **change}), param, "invalid_value", part)


@pytest.mark.parametrize(("change", "param", "part"), UNSUPPORTED.values(), ids=UNSUPPORTED)
def test_unsupported_field_is_named_with_remedy(client, change, param, part) -> None:
    check(client.post("/v1/responses", json={**ASK, **change}), param, "unsupported_parameter", part)


ACCEPTED = {
    "nothing but a question": {},
    "parts": {"input": PARTS},
    "calls": {"input": CALLED},
    "a refusal": spoken([{"type": "refusal", "refusal": "no"}], "assistant"),
    "nulls": {
        "previous_response_id": None, "conversation": None, "background": None, "prompt": None, "tools": None,
        "tool_choice": None, "text": None, "reasoning": None, "instructions": None, "include": None, "metadata": None,
        "parallel_tool_calls": None, "truncation": None, "max_output_tokens": None, "stream": None, "user": None,
    },
    "neutral": {"background": False, "truncation": "auto", "tools": [], "instructions": ""},
    "what changes nothing here": {
        "store": True, "service_tier": "auto", "prompt_cache_key": "k", "prompt_cache_retention": "24h", "user": "u",
        "safety_identifier": "s", "max_tool_calls": 1, "reasoning": {"effort": "high", "summary": "auto"},
        "include": ["reasoning.encrypted_content"], "stream_options": {"include_obfuscation": False},
        "context_management": [{"type": "compaction"}], "client_metadata": {},
    },
    "a tool without parameters": {"tools": [{**NAMED, "parameters": None, "strict": None, "description": None}]},
    "a tool that is chosen": {"tools": [FLAT], "tool_choice": NAMED},
    "an object": {"text": {"format": {"type": "json_object"}, "verbosity": "low"}},
    "a schema": schema(strict=True, description="Where."),
}  # fmt: skip


@pytest.mark.parametrize("change", ACCEPTED.values(), ids=ACCEPTED)
def test_fields_of_clients_are_accepted(client, change) -> None:
    """Accepted up to the missing model."""
    answer = client.post("/v1/responses", json={**ASK, **change})
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "model_not_loaded")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "resp_1"),
        ("DELETE", "resp_1"),
        ("POST", "resp_1/cancel"),
        ("GET", "resp_1/input_items"),
        ("POST", "compact"),
    ],
)
def test_no_response_is_stored(client, method, path) -> None:
    answer = client.request(method, f"/v1/responses/{path}")
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")
    assert f"`{path}`" in answer.json()["error"]["message"]
    assert "stores none" in answer.json()["error"]["message"]
