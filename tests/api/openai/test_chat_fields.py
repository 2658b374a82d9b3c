"""Every field of a chat, one case each: it has its effect, has none, or is rejected by name."""

from pathlib import Path
from typing import Any

import pytest

from millm.api.openai.unsupported import IGNORED_CHAT_FIELDS, UNSUPPORTED_CHAT_FIELDS
from millm.protocol.request import ChatRequest
from tests.api.openai.scripted_server import ScriptedServer
from tests.api.openai.test_tools import TOOLS, write_tool_model
from tests.text.sample_templates import HERMES

USER = {"role": "user", "content": "hi"}
TEMPLATE = (
    "{{- 'mood ' + mood if mood is defined else '' }}{{- 'effort ' + reasoning_effort if reasoning_effort is defined "
    "else '' }}" + HERMES
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> ScriptedServer:
    return ScriptedServer(write_tool_model(tmp_path_factory.mktemp("models") / "fields", TEMPLATE))


def outcome(server: ScriptedServer, body: dict[str, Any]) -> tuple[Any, ...]:
    """Everything that a field could change: the prompt, the engine request and the response."""
    result = server.ask("One. Two.", **body)
    if result.status_code != 200:
        return (result.status_code, result.json()["error"]["param"])
    requested = server.engine.requested[-1]
    unlike = {"id": "", "created": 0, "choices": result.json()["choices"]} if result.headers["content-type"].startswith(
        "application/json"
    ) else result.headers["content-type"]  # fmt: skip
    same = (
        requested.prompt,
        requested.max_tokens,
        requested.sampling,
        requested.stop_ids,
        requested.steering,
        requested.watch,
        requested.grammar,
    )
    return (*same, unlike)


IGNORED: dict[str, Any] = {
    "documents": [{"text": "x"}], "include_reasoning": False, "metadata": {"a": "b"}, "moderation": {"model": "x"},
    "prediction": {"type": "content", "content": "x"}, "prompt_cache_key": "x", "prompt_cache_options": {"a": 1},
    "prompt_cache_retention": "24h", "safety_identifier": "x", "service_tier": "flex", "store": True, "user": "ada",
    "verbosity": "low", "web_search_options": {},
    # what nobody documents, and clients send all the time
    "num_ctx": 4096, "keep_alive": "5m", "session_id": "x", "chat_id": "x",
    # known, and here without effect
    "modalities": ["text"], "stream_options": {"include_usage": True}, "reasoning_effort_": "x",
    "chat_template_kwargs": {"unknown": True, "messages": [], "tools": [1], "add_generation_prompt": False},
    "parallel_tool_calls": True, "tool_choice": "auto", "tools": [], "functions": [], "function_call": "none",
    "response_format": {"type": "text"}, "echo": False, "skip_special_tokens": True, "add_generation_prompt": True,
    "continue_final_message": False, "n": 1, "stop": [], "logit_bias": {}, "logprobs": False,
}  # fmt: skip


@pytest.mark.parametrize("field", IGNORED)
def test_ignored_field_has_no_effect(server, field) -> None:
    assert outcome(server, {field: IGNORED[field]}) == outcome(server, {})


NULLABLE = sorted(set(ChatRequest.model_fields) - {"messages", "model", "steering"})


@pytest.mark.parametrize("field", NULLABLE)
def test_null_equals_absent_field(server, field) -> None:
    assert outcome(server, {field: None}) == outcome(server, {})


CHANGES: dict[str, Any] = {
    "temperature": 0.5, "top_p": 0.5, "top_k": 3, "min_p": 0.1, "presence_penalty": 1, "frequency_penalty": 1,
    "logit_bias": {"5": 3}, "seed": 7, "n": 2, "stop": "Two", "stream": True, "max_tokens": 5,
    "max_completion_tokens": 5, "logprobs": True, "repetition_penalty": 1.2, "min_tokens": 2, "stop_token_ids": [9],
    "ignore_eos": True, "response_format": {"type": "json_object"}, "tools": TOOLS, "functions": [TOOLS[1]["function"]],
    "chat_template_kwargs": {"mood": "calm"}, "reasoning_effort": "high", "add_generation_prompt": False,
}  # fmt: skip


@pytest.mark.parametrize("field", CHANGES)
def test_supported_field_has_its_effect(server, field) -> None:
    assert outcome(server, {field: CHANGES[field]}) != outcome(server, {})


REFUSED = {
    "messages": [[], None, "x", [{"role": "owner", "content": "x"}], [USER] * 2049],
    "model": [None, "", 5],
    "audio": [{"voice": "x"}],
    "modalities": [["audio"], ["text", "audio"]],
    "echo": [True],
    "chat_template": ["{{ 1 }}"],
    "skip_special_tokens": [False],
    "max_tokens": [0, -1, "5"],
    "max_completion_tokens": [0, 1.5],
    "top_logprobs": [5],
    "continue_final_message": [True],
    "tool_choice": [
        "required", "any", {"type": "function", "function": {"name": "x"}}, {"type": "custom", "custom": {"name": "x"}},
        {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [{"type": "custom"}]}}, 5,
    ],
    "function_call": [5],
    "response_format": ["json", {"type": "xml"}, {"type": "json_schema"}, {}],
    "chat_template_kwargs": ["x"],
    "reasoning_effort": ["x" * 65, 5],
    "tools": [
        [{"type": "custom", "custom": {"name": "x"}}], [{"type": "function"}], ["x"], [{}],
        [{"type": "function", "function": {"name": "a b"}}], [TOOLS[0], TOOLS[0]],
        [{"type": "function", "function": {"name": "f", "parameters": {"type": "string"}}}],
        [{"type": "function", "function": {"name": "f", "parameters": {"enum": ["x" * 2**16]}}}],
        [{"type": "function", "function": {"name": "f", "parameters": []}}],
        [{"type": "function", "function": {"name": f"f{n}"}} for n in range(129)],
    ],
}  # fmt: skip


@pytest.mark.parametrize(("field", "value"), [(field, value) for field, values in REFUSED.items() for value in values])
def test_unsupported_field_is_rejected_by_name(server, field, value) -> None:
    status, param = outcome(server, {field: value})
    assert status == 400
    assert param.split(".")[0] == ("tool_choice" if field == "function_call" and value != 5 else field)


@pytest.mark.parametrize(
    "format", [{"name": "a b", "schema": {}}, {"schema": {}}, {"name": "a"}, {"name": "a", "schema": True}]
)
def test_json_schema_needs_a_name_and_a_valid_schema(server, format) -> None:
    status, param = outcome(server, {"response_format": {"type": "json_schema", "json_schema": format}})
    assert (status, param.split(".")[0]) == (400, "response_format")


def test_every_field_has_a_test_case() -> None:
    tried = {*IGNORED, *CHANGES, *REFUSED}
    elsewhere = {"profile", "steering", "activations", "model", "messages"}  # tests of their own
    assert {*ChatRequest.model_fields, *IGNORED_CHAT_FIELDS, *UNSUPPORTED_CHAT_FIELDS} <= tried | elsewhere
    assert not set(IGNORED_CHAT_FIELDS) & {*UNSUPPORTED_CHAT_FIELDS, *ChatRequest.model_fields}


# ------------------------------------------------------------------------------------------- how the prompt is written


def test_template_kwargs_reach_a_template_that_uses_them(server) -> None:
    server.chat("x", chat_template_kwargs={"mood": "calm", "unknown": 1}, reasoning_effort="high")
    assert server.prompt.startswith("<|im_start|>mood calmeffort high") or server.prompt.startswith("mood calm")
    server.chat("x", chat_template_kwargs={"reasoning_effort": "low"}, reasoning_effort="high")
    assert "effort low" in server.prompt


def test_add_generation_prompt_false_leaves_prompt_open(server) -> None:
    server.chat("x", add_generation_prompt=False)
    assert server.prompt.endswith("hi<|im_end|>\n")


@pytest.mark.parametrize("explicit", [{}, {"add_generation_prompt": False}])
def test_continue_final_message_continues_last_message(server, explicit) -> None:
    started = [USER, {"role": "assistant", "content": "The sea"}]
    answer = server.chat(" is wide", messages=started, continue_final_message=True, **explicit)
    assert server.prompt.endswith("<|im_start|>assistant\nThe sea")
    assert answer["choices"][0]["message"]["content"] == " is wide"


def test_conflicting_prompt_endings_are_rejected(server) -> None:
    body = {"messages": [{"role": "assistant", "content": "x"}], "continue_final_message": True}
    assert outcome(server, {**body, "add_generation_prompt": True}) == (400, "continue_final_message")


PARTS: dict[str, tuple[Any, str]] = {
    "parts": ([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}], "ab"),
    "string": ("ab", "ab"),
}


@pytest.mark.parametrize("name", PARTS)
def test_text_parts_equal_a_string(server, name) -> None:
    content, text = PARTS[name]
    assert outcome(server, {"messages": [{"role": "user", "content": content}]}) == outcome(
        server, {"messages": [{"role": "user", "content": text}]}
    )


@pytest.mark.parametrize("kind", ["image_url", "input_audio", "file"])
def test_non_text_parts_are_rejected(server, kind) -> None:
    assert outcome(server, {"messages": [{"role": "user", "content": [{"type": kind, kind: {}}]}]}) == (400, "messages")


def test_empty_message_fields_are_accepted(server) -> None:
    more = {**USER, "refusal": None, "audio": None, "prompt_cache_breakpoint": {}, "reasoning_content": "x"}
    assert outcome(server, {"messages": [more]}) == outcome(server, {"messages": [USER]})


def test_oversized_text_is_rejected_before_tokenizing(tmp_path: Path) -> None:
    server = ScriptedServer(write_tool_model(tmp_path / "small"), context=64)
    result = server.ask("x", messages=[{"role": "user", "content": "sea " * 500_000}])
    assert (result.status_code, result.json()["error"]["code"]) == (400, "context_length_exceeded")
    assert result.json()["error"]["message"].startswith("This model's maximum context length is 64 tokens")
    assert "characters" in result.json()["error"]["message"]
