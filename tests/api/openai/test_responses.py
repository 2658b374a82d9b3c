"""`/v1/responses` equals chat: answers, calls, logprobs, steering and activations."""

import json
from typing import Any

import pytest

from tests.api.openai import openai_schema
from tests.api.openai.conftest import GREETING
from tests.fixtures.close import assert_close
from tests.fixtures.tiny import CONTEXT

ASK = {"model": "tiny-llama", "input": "Tell me about the sea.", "temperature": 0, "max_output_tokens": 24}
"""A short greedy response: the same answer every time."""

LOOK_UP = {
    "name": "look_up",
    "parameters": {
        "type": "object",
        "properties": {"word": {"type": "string", "enum": ["sea", "sky"]}},
        "required": ["word"],
        "additionalProperties": False,
    },
}
FLAT = {"type": "function", **LOOK_UP}
NESTED = {"type": "function", "function": LOOK_UP}
SCHEMA = {
    "type": "object",
    "properties": {"city": {"enum": ["Paris", "Rome"]}, "warm": {"type": "boolean"}},
    "required": ["city", "warm"],
    "additionalProperties": False,
}
ANSWER = [{"role": "assistant", "content": "It is wide."}, {"role": "user", "content": "And the sky?"}]
PARTS = [
    {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Tell me about the "},
                                                    {"type": "input_text", "text": "sea."}]},
    {"type": "reasoning", "id": "rs_1", "summary": []},
    {"type": "message", "id": "msg_1", "status": "completed", "role": "assistant",
     "content": [{"type": "output_text", "text": "It is wide.", "annotations": []}]},
    {"role": "user", "content": "And the sky?"},
]  # fmt: skip
CALLED = [
    {"role": "user", "content": "Tell me about the sea."},
    {"role": "assistant", "content": "I look."},
    {"type": "function_call", "call_id": "call_1", "name": "look_up", "arguments": '{"word":"sea"}'},
    {"type": "function_call", "call_id": "call_2", "name": "look_up", "arguments": '{"word":"sky"}'},
    {"type": "function_call_output", "call_id": "call_1", "output": "water"},
    {"type": "function_call_output", "call_id": "call_2", "output": [{"type": "input_text", "text": "air"}]},
]
CALLED_CHAT = [
    *GREETING,
    {"role": "assistant", "content": "I look.", "tool_calls": [
        {"id": "call_1", "type": "function", "function": {"name": "look_up", "arguments": '{"word":"sea"}'}},
        {"id": "call_2", "type": "function", "function": {"name": "look_up", "arguments": '{"word":"sky"}'}},
    ]},
    {"role": "tool", "tool_call_id": "call_1", "content": "water"},
    {"role": "tool", "tool_call_id": "call_2", "content": "air"},
]  # fmt: skip

PAIRS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "a string": ({"input": "Tell me about the sea."}, {}),
    "messages": ({"input": GREETING + ANSWER}, {"messages": GREETING + ANSWER}),
    "parts": ({"input": PARTS}, {"messages": GREETING + ANSWER}),
    "calls and outputs": ({"input": CALLED, "max_output_tokens": 8}, {"messages": CALLED_CHAT, "max_tokens": 8}),
    "instructions": (
        {"input": GREETING, "instructions": "Be short."},
        {"messages": [{"role": "system", "content": "Be short."}, *GREETING]},
    ),
    "no limit": ({"max_output_tokens": None}, {"max_tokens": None}),
    "sampled": ({"temperature": 1.5, "seed": 7, "top_p": 0.9}, {"temperature": 1.5, "seed": 7, "top_p": 0.9}),
    "a stop string": ({"stop": "e"}, {"stop": "e"}),
    "a schema": (
        {"text": {"format": {"type": "json_schema", "name": "place", "strict": True, "schema": SCHEMA}}},
        {"response_format": {"type": "json_schema", "json_schema": {"name": "place", "schema": SCHEMA}}},
    ),
    "an object": ({"text": {"format": {"type": "json_object"}}}, {"response_format": {"type": "json_object"}}),
    "tools, left to it": ({"tools": [FLAT]}, {"tools": [NESTED]}),
    "no tool": ({"tools": [FLAT], "tool_choice": "none"}, {"tools": [NESTED], "tool_choice": "none"}),
    "some tool": (
        {"tools": [FLAT], "tool_choice": "required", "max_output_tokens": 60},
        {"tools": [NESTED], "tool_choice": "required", "max_tokens": 60},
    ),
    "that tool": (
        {"tools": [FLAT], "tool_choice": {"type": "function", "name": "look_up"}},
        {"tools": [NESTED], "tool_choice": {"type": "function", "function": {"name": "look_up"}}},
    ),
    "an allowed tool": (
        {
            "tools": [FLAT, {**FLAT, "name": "other"}],
            "tool_choice": {
                "type": "allowed_tools",
                "mode": "required",
                "tools": [{"type": "function", "name": "look_up"}],
            },
            "max_output_tokens": 60,
        },
        {"tools": [NESTED], "tool_choice": "required", "max_tokens": 60},
    ),
    "several calls": (
        {"tools": [FLAT], "tool_choice": "required", "parallel_tool_calls": True, "max_output_tokens": 120},
        {"tools": [NESTED], "tool_choice": "required", "parallel_tool_calls": True, "max_tokens": 120},
    ),
    "steered": ({"profile": "push"}, {"profile": "push"}),
    "steered by hand": (
        {"steering": {"features": [{"index": 2, "strength": 3}]}},
        {"steering": {"features": [{"index": 2, "strength": 3}]}},
    ),
    "by the model's name": ({"model": "tiny-llama:hold"}, {"model": "tiny-llama:hold"}),
}


@pytest.fixture
def ask() -> dict[str, Any]:
    return ASK


def content(answer: dict[str, Any]) -> tuple[str | None, list[tuple[str, str]]]:
    """Text and calls of a response."""
    words = [item["content"][0]["text"] for item in answer["output"] if item["type"] == "message"]
    calls = [(item["name"], item["arguments"]) for item in answer["output"] if item["type"] == "function_call"]
    return "".join(words) if words else None, calls


def said_in_chat(answer: dict[str, Any]) -> tuple[str | None, list[tuple[str, str]]]:
    message = answer["choices"][0]["message"]
    calls = [(call["function"]["name"], call["function"]["arguments"]) for call in message.get("tool_calls", [])]
    return message["content"], calls


@pytest.mark.parametrize(("fields", "chat_fields"), PAIRS.values(), ids=PAIRS)
def test_responses_equal_chat_full_and_streamed(http, ask, chat, fields, chat_fields) -> None:
    body, chat_body = {**ask, **fields}, {**chat, **chat_fields}
    result = http.post("/chat/completions", json=chat_body).json()
    at_once, streamed = openai_schema.full(http, body), openai_schema.events(http, body)
    last = streamed[-1]["response"]
    for answer in (at_once, last):
        assert content(answer) == said_in_chat(result)
        is_cut = result["choices"][0]["finish_reason"] == "length"
        assert answer["status"] == ("incomplete" if is_cut else "completed")
        assert answer["incomplete_details"] == ({"reason": "max_output_tokens"} if is_cut else None)
        assert answer["usage"]["input_tokens"] == result["usage"]["prompt_tokens"]
        assert answer["usage"]["output_tokens"] == result["usage"]["completion_tokens"]
        assert answer["usage"]["total_tokens"] == result["usage"]["total_tokens"]
        assert_close(answer["millm"], result["millm"])
    deltas = [event["delta"] for event in streamed if event["type"].endswith(".delta")]
    words, calls = content(last)
    assert "".join(deltas) == (words or "") + "".join(arguments for _, arguments in calls)


def test_logprobs_equal_chat(http, ask, chat) -> None:
    result = http.post("/chat/completions", json={**chat, "logprobs": True, "top_logprobs": 2}).json()
    expected = result["choices"][0]["logprobs"]["content"]
    extra = {"include": ["message.output_text.logprobs"], "top_logprobs": 2}
    at_once, streamed = openai_schema.full(http, ask, **extra), openai_schema.events(http, ask, **extra)
    assert len(expected) == 24
    assert_close(at_once["output"][0]["content"][0]["logprobs"], expected)
    deltas = [event["logprobs"] for event in streamed if event["type"] == "response.output_text.delta"]
    assert_close([entry for logprobs in deltas for entry in logprobs], expected)
    (done,) = [event for event in streamed if event["type"] == "response.output_text.done"]
    assert_close(done["logprobs"], expected)
    alone = openai_schema.full(http, ask, include=["message.output_text.logprobs", "reasoning.encrypted_content"])
    assert_close(alone["output"][0]["content"][0]["logprobs"], [{**entry, "top_logprobs": []} for entry in expected])
    unasked = openai_schema.full(http, ask)
    assert unasked["output"][0]["content"][0]["logprobs"] == []


def test_activations_equal_chat_full_and_streamed(http, ask, chat) -> None:
    watch = {"activations": {"features": [3, 5], "top_k": 2, "tokens": "all"}, "profile": "push"}
    result = http.post("/chat/completions", json={**chat, **watch}).json()["millm"]
    assert len(result["activations"]) > 24
    assert_close(openai_schema.full(http, ask, **watch)["millm"], result)
    assert_close(openai_schema.events(http, ask, **watch)[-1]["response"]["millm"], result)


def test_profile_header_is_accepted(http, ask) -> None:
    answer = http.post("/responses", json=ask, headers={"X-Millm-Profile": "hold"}).json()
    assert answer["millm"]["profile"] == "hold"
    assert answer["millm"] == openai_schema.full(http, ask, profile="hold")["millm"]


def test_response_echoes_request_with_defaults(http, ask) -> None:
    bare = openai_schema.full(http, ask)
    expected = {
        "object": "response", "model": ask["model"], "error": None, "instructions": None, "max_output_tokens": 24,
        "temperature": 0.0, "top_p": 1.0, "top_logprobs": 0, "presence_penalty": 0.0, "frequency_penalty": 0.0,
        "text": {"format": {"type": "text"}, "verbosity": "medium"}, "tools": [], "tool_choice": "auto",
        "parallel_tool_calls": True, "max_tool_calls": None, "reasoning": {"effort": None, "summary": None},
        "truncation": "disabled", "metadata": {}, "user": None, "safety_identifier": None, "prompt_cache_key": None,
        "service_tier": "default", "store": False, "background": False, "previous_response_id": None,
    }  # fmt: skip
    assert {name: bare[name] for name in expected} == expected
    requested = {
        "instructions": "Be short.", "metadata": {"a": "b"}, "user": "u", "safety_identifier": "s",
        "prompt_cache_key": "k", "truncation": "auto", "max_tool_calls": 3, "top_p": 0.5, "parallel_tool_calls": False,
        "tool_choice": "none", "tools": [{**FLAT, "description": "In a dictionary.", "strict": True}],
        "text": {"verbosity": "low", "format": {
            "type": "json_schema", "name": "place", "description": None, "schema": SCHEMA, "strict": True}},
    }  # fmt: skip
    ignored = {"store": True, "service_tier": "flex", "reasoning": {"effort": "low", "summary": "auto"}}
    streamed = openai_schema.events(http, ask, **requested, **ignored, background=False, stream_options={})
    for event in (streamed[0], streamed[1], streamed[-1]):
        result = event["response"]
        assert {name: result[name] for name in requested} == requested
        assert result["reasoning"] == {"effort": "low", "summary": None}
        assert (result["id"], result["created_at"]) == (
            streamed[0]["response"]["id"],
            streamed[0]["response"]["created_at"],
        )
    assert streamed[0]["response"]["id"].startswith("resp_")


def test_oversized_conversation_is_rejected_before_streaming(http, ask) -> None:
    for stream in (False, True):
        answer = http.post(
            "/responses", json={**ask, "input": "sea sky " * CONTEXT, "truncation": "auto", "stream": stream}
        )
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "context_length_exceeded")


@pytest.mark.parametrize(
    ("change", "status", "code"),
    [
        ({"model": "gpt-5"}, 404, "model_not_found"),
        ({"model": "tiny-llama:nope"}, 404, "profile_not_found"),
        ({"profile": "nope"}, 404, "profile_not_found"),
        ({"steering": {"features": [{"index": 10**6, "strength": 1}]}}, 400, "invalid_steering"),
        ({"logit_bias": {"400000": 1}}, 400, "invalid_value"),
    ],
)
def test_incompatible_steering_is_rejected(http, ask, change, status, code) -> None:
    for stream in (False, True):
        answer = http.post("/responses", json={**ask, **change, "stream": stream})
        assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)


def test_conversation_continues_after_a_function_call(http, ask) -> None:
    """The output items and the function's output continue the conversation."""
    first = openai_schema.full(http, ask, tools=[FLAT], tool_choice="required", max_output_tokens=60)
    (call,) = first["output"]
    assert json.loads(call["arguments"])["word"] in ("sea", "sky")
    output = {"type": "function_call_output", "call_id": call["call_id"], "output": "water"}
    conversation = [{"role": "user", "content": ask["input"]}, *first["output"], output]
    second = openai_schema.full(http, ask, input=conversation, tools=[FLAT])
    spelled = [
        {"role": "user", "content": ask["input"]},
        {
            "role": "assistant",
            "content": json.dumps({"name": "look_up", "arguments": call["arguments"]}, separators=(",", ":")),
        },
        {"role": "user", "content": "Tool result: water"},
    ]
    assert content(second) == content(openai_schema.full(http, ask, input=spelled))
    assert second["usage"]["input_tokens"] > first["usage"]["input_tokens"]
