"""Tools in the prompt, parsed calls, and their format in full responses and streams."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from millm.settings import Settings
from tests.api.openai.scripted_server import ScriptedServer
from tests.fixtures.tiny import write_model
from tests.text.sample_templates import HERMES, SMOLLM2
from tests.text.test_response_parser import TEMPLATES
from tests.text.tool_call_samples import HERMES as RECORDED
from tests.text.tool_call_samples import WORDS

CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOLS = [
    {"type": "function", "function": {"name": "get_weather", "description": "The weather.", "parameters": CITY}},
    {"type": "function", "function": {"name": "get_time"}},
]
NAMED = {"type": "function", "function": {"name": "get_weather"}}
CALL = '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Paris"}}\n</tool_call>'


def write_tool_model(folder: Path, template: str = HERMES, **settings: object) -> Path:
    """The tiny model with a template that supports tools."""
    write_model(folder)
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | {"chat_template": template} | settings))
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tool_model(tmp_path_factory.mktemp("models") / "tools")


@pytest.fixture
def scripted(folder: Path) -> ScriptedServer:
    return ScriptedServer(folder)


@pytest.fixture(scope="module")
def without(tmp_path_factory: pytest.TempPathFactory) -> ScriptedServer:
    """A model whose template does not support tools."""
    return ScriptedServer(write_tool_model(tmp_path_factory.mktemp("models") / "without", SMOLLM2))


def message(answer: dict[str, Any]) -> dict[str, Any]:
    return answer["choices"][0]["message"]


def calls(result: dict[str, Any]) -> list[tuple[str, str]]:
    return [(call["function"]["name"], call["function"]["arguments"]) for call in result.get("tool_calls", [])]


def deltas(scripted: ScriptedServer, answer: str, **body: Any) -> Iterator[tuple[dict[str, Any], str | None]]:
    result = scripted.ask(answer, stream=True, **body)
    assert result.status_code == 200, result.text
    for frame in result.text.split("\n\n"):
        if frame.startswith("data: {"):
            chunk = json.loads(frame.removeprefix("data: "))
            yield chunk["choices"][0]["delta"], chunk["choices"][0]["finish_reason"]


def joined(parts: list[tuple[dict[str, Any], str | None]]) -> dict[str, Any]:
    """A stream's deltas joined to one message, with their format checked."""
    result: dict[str, Any] = {"content": "", "tool_calls": []}
    for delta, _ in parts:
        result["content"] += delta.get("content") or ""
        for part in delta.get("tool_calls", ()):
            if "id" in part:
                assert part["index"] == len(result["tool_calls"])
                assert (part["type"], part["function"]["arguments"]) == ("function", "")
                assert part["id"].startswith("call_")
                result["tool_calls"].append({"function": {"name": part["function"]["name"], "arguments": ""}})
            else:
                assert set(part) == {"index", "function"}
                assert set(part["function"]) == {"arguments"}
                result["tool_calls"][part["index"]]["function"]["arguments"] += part["function"]["arguments"]
    return result


@pytest.mark.parametrize("name", RECORDED)
def test_full_response_separates_text_and_calls(scripted, name) -> None:
    text, words, called = RECORDED[name]
    answer = scripted.chat(text, tools=TOOLS)
    result = message(answer)
    assert (result["content"], calls(result)) == (words or None, called)
    assert answer["choices"][0]["finish_reason"] == "tool_calls"
    assert len({call["id"] for call in result["tool_calls"]}) == len(called)


@pytest.mark.parametrize("text", [*(text for text, _, _ in RECORDED.values()), *WORDS.values()])
def test_stream_equals_full_response(scripted, text) -> None:
    full = scripted.chat(text, tools=TOOLS)
    parts = list(deltas(scripted, text, tools=TOOLS))
    result = joined(parts)
    assert (result["content"], calls(result)) == (message(full)["content"] or "", calls(message(full)))
    assert [reason for _, reason in parts if reason] == [full["choices"][0]["finish_reason"]]
    assert parts[0][0] == {"role": "assistant", "content": ""}


def test_arguments_stream_token_by_token(scripted) -> None:
    parts = [delta["tool_calls"][0] for delta, _ in deltas(scripted, CALL, tools=TOOLS) if "tool_calls" in delta]
    assert len(parts) > 4
    assert "".join(part["function"]["arguments"] for part in parts) == '{"city": "Paris"}'


@pytest.mark.parametrize("name", WORDS)
def test_text_that_is_not_a_call_is_content(scripted, name) -> None:
    answer = scripted.chat(WORDS[name], tools=TOOLS)
    assert message(answer)["content"] == WORDS[name]
    assert "tool_calls" not in message(answer)
    assert answer["choices"][0]["finish_reason"] == "stop"


def test_truncated_call_ends_with_length(scripted) -> None:
    scripted.engine.reason = "length"
    answer = scripted.chat(CALL[:60], tools=TOOLS)
    assert answer["choices"][0]["finish_reason"] == "length"
    assert calls(message(answer))[0][0] == "get_weather"


def test_logprobs_cover_all_call_tokens(scripted) -> None:
    answer = scripted.chat(CALL, tools=TOOLS, logprobs=True)
    entries = answer["choices"][0]["logprobs"]["content"]
    assert "".join(entry["token"] for entry in entries) == CALL


def test_parallel_tool_calls_false_allows_one_call(scripted) -> None:
    text, _, called = RECORDED["two"]
    answer = scripted.chat(text, tools=TOOLS, parallel_tool_calls=False)
    assert calls(message(answer)) == called[:1]
    assert answer["choices"][0]["finish_reason"] == "tool_calls"
    assert len(scripted.engine.cancelled) == 1


def test_every_choice_has_its_own_calls(scripted) -> None:
    answer = scripted.chat(CALL, tools=TOOLS, n=2)
    ids = [choice["message"]["tool_calls"][0]["id"] for choice in answer["choices"]]
    assert len(set(ids)) == 2


def test_tools_are_in_the_prompt(scripted) -> None:
    assert "tools_omitted" not in scripted.chat("hi", tools=TOOLS)["millm"]
    assert '"name": "get_weather"' in scripted.prompt
    assert '"city": {"type": "string"}' in scripted.prompt


@pytest.mark.parametrize("body", [{"tool_choice": "none"}, {"tools": []}, {"tools": None}])
def test_no_tools_or_choice_none_disables_tools(scripted, body) -> None:
    answer = scripted.chat(CALL, **{"tools": TOOLS, **body})
    assert message(answer)["content"] == CALL
    assert "get_weather" not in scripted.prompt
    assert "tools_omitted" not in answer["millm"]


def test_tools_omitted_for_template_without_tool_support(without) -> None:
    answer = without.chat("hi", tools=TOOLS)
    assert answer["millm"]["tools_omitted"] is True
    assert "get_weather" not in without.prompt


def test_oversized_tools_are_omitted(folder) -> None:
    """Open WebUI sends 28 tools with every chat; the response reports that they were omitted."""
    many = [
        {"type": "function", "function": {"name": f"tool_{n}", "description": "Does this and that. " * 5}}
        for n in range(28)
    ]
    small = ScriptedServer(folder, context=512)
    answer = small.chat("hi", tools=many)
    assert answer["millm"]["tools_omitted"] is True
    assert "tool_1" not in small.prompt
    large = ScriptedServer(folder, context=20_000)
    assert "tools_omitted" not in large.chat("hi", tools=many)["millm"]
    assert "tool_27" in large.prompt


def test_tools_below_half_of_context_stay(folder) -> None:
    server = ScriptedServer(folder, context=1024)
    long = [{"role": "user", "content": "sea sky " * 120}]
    answer = server.chat("hi", tools=TOOLS, messages=long)
    assert len(server.engine.requested[-1].prompt) > 512
    assert "tools_omitted" not in answer["millm"]
    longer = [{"role": "user", "content": "sea sky " * 400}]
    assert server.chat("hi", tools=TOOLS, messages=longer)["millm"]["tools_omitted"] is True


def test_disabled_tools_are_accepted_and_unused(folder) -> None:
    server = ScriptedServer(folder)
    server.state.settings = Settings(tools="off")
    answer = server.chat(CALL, tools=TOOLS)
    assert message(answer)["content"] == CALL
    assert "get_weather" not in server.prompt
    refused = server.ask("x", tools=TOOLS, tool_choice="required")
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "tool_choice")


HISTORY = [
    {"role": "user", "content": "What is the weather?"},
    {
        "role": "assistant",
        "content": None,
        "tool_calls": [
            {"id": "c1", "type": "function", "function": {"name": "get_weather", "arguments": '{"city": "Oslo"}'}}
        ],
    },
    {"role": "tool", "tool_call_id": "c1", "content": [{"type": "text", "text": "Sunny"}]},
]


@pytest.mark.parametrize("choice", ["auto", "none"])
def test_earlier_calls_are_rendered_by_the_template(scripted, choice) -> None:
    scripted.chat("hi", messages=HISTORY, tools=TOOLS, tool_choice=choice)
    assert '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Oslo"}}\n</tool_call>' in scripted.prompt
    assert "<tool_response>\nSunny\n</tool_response>" in scripted.prompt


def test_older_function_call_form_is_rendered(scripted) -> None:
    called = {"name": "get_weather", "arguments": '{"city": "Oslo"}'}
    older = [
        HISTORY[0],
        {"role": "assistant", "content": None, "function_call": called},
        {"role": "function", "name": "get_weather", "content": "Sunny"},
    ]
    scripted.chat("hi", messages=HISTORY)
    newer = scripted.prompt
    scripted.chat("hi", messages=older)
    assert scripted.prompt == newer


def test_earlier_calls_become_text_without_template_support(without) -> None:
    without.chat("hi", messages=HISTORY)
    assert '{"name":"get_weather","arguments":"{\\"city\\": \\"Oslo\\"}"}' in without.prompt
    assert "Tool result: Sunny" in without.prompt


def test_earlier_calls_become_text_where_template_rejects_them(tmp_path) -> None:
    strict = "{%- for message in messages %}{%- if message.tool_calls and message.tool_calls | length > 1 %}"
    strict += "{{ raise_exception('one call at a time') }}{%- endif %}{%- endfor %}" + HERMES
    server = ScriptedServer(write_tool_model(tmp_path / "strict", strict))
    both = [HISTORY[0], {**HISTORY[1], "tool_calls": HISTORY[1]["tool_calls"] * 2}, HISTORY[2]]
    server.chat("hi", messages=both)
    assert server.prompt.count('"name":"get_weather"') == 2


def test_invalid_json_arguments_stay_text(scripted) -> None:
    broken = {"id": "c1", "type": "function", "function": {"name": "get_time", "arguments": "not {json"}}
    scripted.chat("hi", messages=[HISTORY[0], {"role": "assistant", "tool_calls": [broken]}, HISTORY[2]])
    assert "not {json" in scripted.prompt


# ------------------------------------------------------------------------------------------------------ forced calls


@pytest.mark.parametrize("stream", [False, True])
def test_named_function_call_is_returned(scripted, stream) -> None:
    content = '{"city":"Paris"}'
    if stream:
        parts = list(deltas(scripted, content, tools=TOOLS, tool_choice=NAMED))
        assert parts[0][0] == {"role": "assistant", "content": None}
        assert all(delta for delta, reason in parts if not reason), "every chunk but the last says something"
        result, reason = joined(parts), parts[-1][1]
    else:
        answer = scripted.chat(content, tools=TOOLS, tool_choice=NAMED)
        result, reason = message(answer), answer["choices"][0]["finish_reason"]
        assert result["content"] is None
    assert (calls(result), reason) == ([("get_weather", content)], "stop")
    assert scripted.engine.requested[-1].grammar is not None


@pytest.mark.parametrize(
    ("parallel", "content"),
    [
        (None, '{"name":"get_time","arguments":{}}'),
        (False, '{"name":"get_time","arguments":{}}'),
        (True, '[{"name":"get_time","arguments":{}},{"name":"get_weather","arguments":{"city":"Rome"}}]'),
    ],
)
def test_required_allows_one_or_several_calls(scripted, parallel, content) -> None:
    answer = scripted.chat(content, tools=TOOLS, tool_choice="required", parallel_tool_calls=parallel)
    expected = [("get_time", "{}"), ("get_weather", '{"city":"Rome"}')][: 2 if parallel else 1]
    assert calls(message(answer)) == expected
    assert answer["choices"][0]["finish_reason"] == "tool_calls"
    result = joined(list(deltas(scripted, content, tools=TOOLS, tool_choice="required", parallel_tool_calls=parallel)))
    assert calls(result) == expected


def test_forced_call_is_described_without_template_support(without) -> None:
    without.chat('{"city":"Paris"}', tools=TOOLS, tool_choice=NAMED)
    assert '"name":"get_weather","description":"The weather."' in without.prompt
    assert "get_time" not in without.prompt


def test_forced_call_overrides_response_format(scripted) -> None:
    answer = scripted.chat("{}", tools=TOOLS, tool_choice=NAMED, response_format={"type": "json_object"})
    assert calls(message(answer)) == [("get_weather", "{}")]


def test_response_format_disables_calls(scripted) -> None:
    answer = scripted.chat('{"a":1}', tools=TOOLS, response_format={"type": "json_object"})
    assert message(answer)["content"] == '{"a":1}'
    assert scripted.engine.requested[-1].grammar is not None


def allowed(mode: str, *names: str) -> dict[str, Any]:
    tools = [{"type": "function", "function": {"name": name}} for name in names]
    return {"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": tools}}


def test_allowed_tools_restricts_tools(scripted) -> None:
    answer = scripted.chat(CALL, tools=TOOLS, tool_choice=allowed("auto", "get_time"))
    assert message(answer)["content"] == CALL
    assert "get_weather" not in scripted.prompt
    content = '{"name":"get_time","arguments":{}}'
    answer = scripted.chat(content, tools=TOOLS, tool_choice=allowed("required", "get_time"))
    assert calls(message(answer)) == [("get_time", "{}")]
    assert "get_weather" not in scripted.engine.requested[-1].grammar


@pytest.mark.parametrize(
    ("function_call", "content"), [("auto", CALL), ({"name": "get_weather"}, '{"city":"Paris"}'), (None, CALL)]
)
def test_functions_is_the_older_name_of_tools(scripted, function_call, content) -> None:
    functions = [tool["function"] for tool in TOOLS]
    answer = scripted.chat(content, functions=functions, function_call=function_call)
    ((name, arguments),) = calls(message(answer))
    assert (name, json.loads(arguments)) == ("get_weather", {"city": "Paris"})
    assert message(scripted.chat(CALL, functions=functions, function_call="none"))["content"] == CALL


# ------------------------------------------------------------------------------------------------ response templates


@pytest.fixture(scope="module")
def thinking(tmp_path_factory: pytest.TempPathFactory) -> ScriptedServer:
    """A model with a response template for reasoning and calls."""
    folder = tmp_path_factory.mktemp("models") / "thinking"
    return ScriptedServer(write_tool_model(folder, response_template=TEMPLATES["qwen2"]))


THOUGHT = f"<think>\nHm.\n</think>\n\nI look.\n{CALL}"


def test_response_template_separates_reasoning_text_and_calls(thinking) -> None:
    answer = thinking.chat(THOUGHT, tools=TOOLS)
    result = message(answer)
    assert (result["reasoning_content"], result["content"]) == ("Hm.", "I look.")
    assert [(name, json.loads(arguments)) for name, arguments in calls(result)] == [("get_weather", {"city": "Paris"})]
    assert answer["choices"][0]["finish_reason"] == "tool_calls"
    parts = list(deltas(thinking, THOUGHT, tools=TOOLS))
    assert "".join(delta.get("reasoning_content", "") for delta, _ in parts) == "Hm."
    assert joined(parts)["content"] == "I look."
    assert calls(joined(parts)) == calls(result)


def test_response_template_without_tools_returns_reasoning(thinking) -> None:
    result = message(thinking.chat(THOUGHT))
    assert result["reasoning_content"] == "Hm."
    assert "tool_calls" not in result
    assert result["content"].endswith(CALL)


def test_reasoning_is_content_without_response_template(scripted) -> None:
    result = message(scripted.chat("<think>Hm.</think>Hi"))
    assert result["content"] == "<think>Hm.</think>Hi"
    assert "reasoning_content" not in result


def test_special_token_markers_are_parsed(tmp_path) -> None:
    """Tokens that otherwise yield no text."""
    folder = write_tool_model(tmp_path / "special")
    path = folder / "tokenizer.json"
    tokenizer = json.loads(path.read_text("utf-8"))
    last = max(tokenizer["model"]["vocab"].values())
    for name, id in {"<tool_call>": last, "</tool_call>": last - 1}.items():
        word = next(word for word, index in tokenizer["model"]["vocab"].items() if index == id)
        del tokenizer["model"]["vocab"][word]
        tokenizer["model"]["vocab"][name] = id
        tokenizer["added_tokens"].append(
            {"id": id, "content": name, "special": True, "single_word": False, "lstrip": False, "rstrip": False,
             "normalized": False}
        )  # fmt: skip
    tokenizer["model"]["merges"] = []
    path.write_text(json.dumps(tokenizer))
    server = ScriptedServer(folder)
    assert calls(message(server.chat(CALL, tools=TOOLS))) == [("get_weather", '{"city": "Paris"}')]
    assert "<tool_call>" not in message(server.chat(CALL))["content"]
