"""Tools: what the model reads of them, what of its answer is a call, and how whole answers and streams tell it."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from millm.settings import Settings
from tests.api.openai.saying import SayingServer
from tests.fixtures.tiny import write_model
from tests.text.tool_call_samples import HERMES as RECORDED
from tests.text.tool_call_samples import WORDS
from tests.text.sample_templates import HERMES, SMOLLM2
from tests.text.test_response_parser import TEMPLATES

CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOLS = [
    {"type": "function", "function": {"name": "get_weather", "description": "The weather.", "parameters": CITY}},
    {"type": "function", "function": {"name": "get_time"}},
]
NAMED = {"type": "function", "function": {"name": "get_weather"}}
CALL = '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Paris"}}\n</tool_call>'


def write_tool_model(folder: Path, template: str = HERMES, **settings: object) -> Path:
    """The tiny model under a template that takes tools."""
    write_model(folder)
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | {"chat_template": template} | settings))
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tool_model(tmp_path_factory.mktemp("models") / "tools")


@pytest.fixture
def saying(folder: Path) -> SayingServer:
    return SayingServer(folder)


@pytest.fixture(scope="module")
def without(tmp_path_factory: pytest.TempPathFactory) -> SayingServer:
    """A model whose template does not take tools."""
    return SayingServer(write_tool_model(tmp_path_factory.mktemp("models") / "without", SMOLLM2))


def message(answer: dict[str, Any]) -> dict[str, Any]:
    return answer["choices"][0]["message"]


def calls(told: dict[str, Any]) -> list[tuple[str, str]]:
    return [(call["function"]["name"], call["function"]["arguments"]) for call in told.get("tool_calls", [])]


def deltas(saying: SayingServer, answer: str, **body: Any) -> Iterator[tuple[dict[str, Any], str | None]]:
    told = saying.ask(answer, stream=True, **body)
    assert told.status_code == 200, told.text
    for frame in told.text.split("\n\n"):
        if frame.startswith("data: {"):
            chunk = json.loads(frame.removeprefix("data: "))
            yield chunk["choices"][0]["delta"], chunk["choices"][0]["finish_reason"]


def joined(parts: list[tuple[dict[str, Any], str | None]]) -> dict[str, Any]:
    """A stream's deltas as one message, checked for the shape that clients expect."""
    told: dict[str, Any] = {"content": "", "tool_calls": []}
    for delta, _ in parts:
        told["content"] += delta.get("content") or ""
        for part in delta.get("tool_calls", ()):
            if "id" in part:
                assert part["index"] == len(told["tool_calls"])
                assert (part["type"], part["function"]["arguments"]) == ("function", "")
                assert part["id"].startswith("call_")
                told["tool_calls"].append({"function": {"name": part["function"]["name"], "arguments": ""}})
            else:
                assert set(part) == {"index", "function"}
                assert set(part["function"]) == {"arguments"}
                told["tool_calls"][part["index"]]["function"]["arguments"] += part["function"]["arguments"]
    return told


@pytest.mark.parametrize("name", RECORDED)
def test_a_whole_answer_tells_words_and_calls(saying, name) -> None:
    text, words, called = RECORDED[name]
    answer = saying.chat(text, tools=TOOLS)
    told = message(answer)
    assert (told["content"], calls(told)) == (words or None, called)
    assert answer["choices"][0]["finish_reason"] == "tool_calls"
    assert len({call["id"] for call in told["tool_calls"]}) == len(called)


@pytest.mark.parametrize("text", [*(text for text, _, _ in RECORDED.values()), *WORDS.values()])
def test_a_stream_tells_the_same(saying, text) -> None:
    whole = saying.chat(text, tools=TOOLS)
    parts = list(deltas(saying, text, tools=TOOLS))
    told = joined(parts)
    assert (told["content"], calls(told)) == (message(whole)["content"] or "", calls(message(whole)))
    assert [reason for _, reason in parts if reason] == [whole["choices"][0]["finish_reason"]]
    assert parts[0][0] == {"role": "assistant", "content": ""}


def test_arguments_come_token_by_token(saying) -> None:
    parts = [delta["tool_calls"][0] for delta, _ in deltas(saying, CALL, tools=TOOLS) if "tool_calls" in delta]
    assert len(parts) > 4
    assert "".join(part["function"]["arguments"] for part in parts) == '{"city": "Paris"}'


@pytest.mark.parametrize("name", WORDS)
def test_what_is_no_call_is_content(saying, name) -> None:
    answer = saying.chat(WORDS[name], tools=TOOLS)
    assert message(answer)["content"] == WORDS[name]
    assert "tool_calls" not in message(answer)
    assert answer["choices"][0]["finish_reason"] == "stop"


def test_a_call_that_the_limit_cut_off_ends_with_length(saying) -> None:
    saying.engine.reason = "length"
    answer = saying.chat(CALL[:60], tools=TOOLS)
    assert answer["choices"][0]["finish_reason"] == "length"
    assert calls(message(answer))[0][0] == "get_weather"


def test_logprobs_cover_every_token_of_a_call(saying) -> None:
    answer = saying.chat(CALL, tools=TOOLS, logprobs=True)
    entries = answer["choices"][0]["logprobs"]["content"]
    assert "".join(entry["token"] for entry in entries) == CALL


def test_only_one_call_where_no_parallel_ones_are_wanted(saying) -> None:
    text, _, called = RECORDED["two"]
    answer = saying.chat(text, tools=TOOLS, parallel_tool_calls=False)
    assert calls(message(answer)) == called[:1]
    assert answer["choices"][0]["finish_reason"] == "tool_calls"
    assert len(saying.engine.cancelled) == 1


def test_each_choice_has_calls_of_its_own(saying) -> None:
    answer = saying.chat(CALL, tools=TOOLS, n=2)
    ids = [choice["message"]["tool_calls"][0]["id"] for choice in answer["choices"]]
    assert len(set(ids)) == 2


def test_tools_are_told_to_the_model(saying) -> None:
    assert "tools_omitted" not in saying.chat("hi", tools=TOOLS)["millm"]
    assert '"name": "get_weather"' in saying.prompt
    assert '"city": {"type": "string"}' in saying.prompt


@pytest.mark.parametrize("body", [{"tool_choice": "none"}, {"tools": []}, {"tools": None}])
def test_without_tools_or_with_none_there_are_none(saying, body) -> None:
    answer = saying.chat(CALL, **{"tools": TOOLS, **body})
    assert message(answer)["content"] == CALL
    assert "get_weather" not in saying.prompt
    assert "tools_omitted" not in answer["millm"]


def test_a_template_that_takes_no_tools_is_not_told_of_them(without) -> None:
    answer = without.chat("hi", tools=TOOLS)
    assert answer["millm"]["tools_omitted"] is True
    assert "get_weather" not in without.prompt


def test_tools_that_leave_too_little_room_are_left_out(folder) -> None:
    """Open WebUI sends 28 with every chat; the answer says that they were left out."""
    many = [
        {"type": "function", "function": {"name": f"tool_{n}", "description": "Does this and that. " * 5}}
        for n in range(28)
    ]
    small = SayingServer(folder, context=512)
    answer = small.chat("hi", tools=many)
    assert answer["millm"]["tools_omitted"] is True
    assert "tool_1" not in small.prompt
    large = SayingServer(folder, context=20_000)
    assert "tools_omitted" not in large.chat("hi", tools=many)["millm"]
    assert "tool_27" in large.prompt


def test_a_long_conversation_keeps_tools_that_take_less_than_half(folder) -> None:
    server = SayingServer(folder, context=1024)
    long = [{"role": "user", "content": "sea sky " * 120}]
    answer = server.chat("hi", tools=TOOLS, messages=long)
    assert len(server.engine.asked[-1].prompt) > 512
    assert "tools_omitted" not in answer["millm"]
    longer = [{"role": "user", "content": "sea sky " * 400}]
    assert server.chat("hi", tools=TOOLS, messages=longer)["millm"]["tools_omitted"] is True


def test_turned_off_they_are_accepted_and_not_used(folder) -> None:
    server = SayingServer(folder)
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
def test_earlier_calls_are_told_as_the_template_tells_them(saying, choice) -> None:
    saying.chat("hi", messages=HISTORY, tools=TOOLS, tool_choice=choice)
    assert '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Oslo"}}\n</tool_call>' in saying.prompt
    assert "<tool_response>\nSunny\n</tool_response>" in saying.prompt


def test_earlier_calls_in_the_older_form_are_calls_too(saying) -> None:
    called = {"name": "get_weather", "arguments": '{"city": "Oslo"}'}
    older = [
        HISTORY[0],
        {"role": "assistant", "content": None, "function_call": called},
        {"role": "function", "name": "get_weather", "content": "Sunny"},
    ]
    saying.chat("hi", messages=HISTORY)
    newer = saying.prompt
    saying.chat("hi", messages=older)
    assert saying.prompt == newer


def test_earlier_calls_are_text_where_the_template_knows_none(without) -> None:
    without.chat("hi", messages=HISTORY)
    assert '{"name":"get_weather","arguments":"{\\"city\\": \\"Oslo\\"}"}' in without.prompt
    assert "Tool result: Sunny" in without.prompt


def test_earlier_calls_are_text_where_the_template_refuses_these(tmp_path) -> None:
    strict = "{%- for message in messages %}{%- if message.tool_calls and message.tool_calls | length > 1 %}"
    strict += "{{ raise_exception('one call at a time') }}{%- endif %}{%- endfor %}" + HERMES
    server = SayingServer(write_tool_model(tmp_path / "strict", strict))
    both = [HISTORY[0], {**HISTORY[1], "tool_calls": HISTORY[1]["tool_calls"] * 2}, HISTORY[2]]
    server.chat("hi", messages=both)
    assert server.prompt.count('"name":"get_weather"') == 2


def test_arguments_that_were_never_json_stay_as_they_were(saying) -> None:
    broken = {"id": "c1", "type": "function", "function": {"name": "get_time", "arguments": "not {json"}}
    saying.chat("hi", messages=[HISTORY[0], {"role": "assistant", "tool_calls": [broken]}, HISTORY[2]])
    assert "not {json" in saying.prompt


# ------------------------------------------------------------------------------------------------------ forced calls


@pytest.mark.parametrize("stream", [False, True])
def test_a_named_function_is_told_as_its_call(saying, stream) -> None:
    said = '{"city":"Paris"}'
    if stream:
        parts = list(deltas(saying, said, tools=TOOLS, tool_choice=NAMED))
        assert parts[0][0] == {"role": "assistant", "content": None}
        assert all(delta for delta, reason in parts if not reason), "every chunk but the last says something"
        told, reason = joined(parts), parts[-1][1]
    else:
        answer = saying.chat(said, tools=TOOLS, tool_choice=NAMED)
        told, reason = message(answer), answer["choices"][0]["finish_reason"]
        assert told["content"] is None
    assert (calls(told), reason) == ([("get_weather", said)], "stop")
    assert saying.engine.asked[-1].grammar is not None


@pytest.mark.parametrize(
    ("parallel", "said"),
    [
        (None, '{"name":"get_time","arguments":{}}'),
        (False, '{"name":"get_time","arguments":{}}'),
        (True, '[{"name":"get_time","arguments":{}},{"name":"get_weather","arguments":{"city":"Rome"}}]'),
    ],
)
def test_a_required_call_is_one_or_several(saying, parallel, said) -> None:
    answer = saying.chat(said, tools=TOOLS, tool_choice="required", parallel_tool_calls=parallel)
    expected = [("get_time", "{}"), ("get_weather", '{"city":"Rome"}')][: 2 if parallel else 1]
    assert calls(message(answer)) == expected
    assert answer["choices"][0]["finish_reason"] == "tool_calls"
    told = joined(list(deltas(saying, said, tools=TOOLS, tool_choice="required", parallel_tool_calls=parallel)))
    assert calls(told) == expected


def test_a_forced_call_is_described_where_the_template_takes_no_tools(without) -> None:
    without.chat('{"city":"Paris"}', tools=TOOLS, tool_choice=NAMED)
    assert '"name":"get_weather","description":"The weather."' in without.prompt
    assert "get_time" not in without.prompt


def test_a_forced_call_goes_before_the_format_of_words(saying) -> None:
    answer = saying.chat("{}", tools=TOOLS, tool_choice=NAMED, response_format={"type": "json_object"})
    assert calls(message(answer)) == [("get_weather", "{}")]


def test_with_a_format_for_words_nothing_is_a_call(saying) -> None:
    answer = saying.chat('{"a":1}', tools=TOOLS, response_format={"type": "json_object"})
    assert message(answer)["content"] == '{"a":1}'
    assert saying.engine.asked[-1].grammar is not None


def allowed(mode: str, *names: str) -> dict[str, Any]:
    tools = [{"type": "function", "function": {"name": name}} for name in names]
    return {"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": tools}}


def test_allowed_tools_are_the_only_ones(saying) -> None:
    answer = saying.chat(CALL, tools=TOOLS, tool_choice=allowed("auto", "get_time"))
    assert message(answer)["content"] == CALL
    assert "get_weather" not in saying.prompt
    said = '{"name":"get_time","arguments":{}}'
    answer = saying.chat(said, tools=TOOLS, tool_choice=allowed("required", "get_time"))
    assert calls(message(answer)) == [("get_time", "{}")]
    assert "get_weather" not in saying.engine.asked[-1].grammar


@pytest.mark.parametrize(
    ("function_call", "said"), [("auto", CALL), ({"name": "get_weather"}, '{"city":"Paris"}'), (None, CALL)]
)
def test_functions_are_tools_by_their_older_name(saying, function_call, said) -> None:
    functions = [tool["function"] for tool in TOOLS]
    answer = saying.chat(said, functions=functions, function_call=function_call)
    ((name, arguments),) = calls(message(answer))
    assert (name, json.loads(arguments)) == ("get_weather", {"city": "Paris"})
    assert message(saying.chat(CALL, functions=functions, function_call="none"))["content"] == CALL


# ------------------------------------------------------------------------------------------------ response templates


@pytest.fixture(scope="module")
def thinking(tmp_path_factory: pytest.TempPathFactory) -> SayingServer:
    """A model that says how it writes its reasoning and its calls."""
    folder = tmp_path_factory.mktemp("models") / "thinking"
    return SayingServer(write_tool_model(folder, response_template=TEMPLATES["qwen2"]))


THOUGHT = f"<think>\nHm.\n</think>\n\nI look.\n{CALL}"


def test_a_response_template_tells_reasoning_words_and_calls_apart(thinking) -> None:
    answer = thinking.chat(THOUGHT, tools=TOOLS)
    told = message(answer)
    assert (told["reasoning_content"], told["content"]) == ("Hm.", "I look.")
    assert [(name, json.loads(arguments)) for name, arguments in calls(told)] == [("get_weather", {"city": "Paris"})]
    assert answer["choices"][0]["finish_reason"] == "tool_calls"
    parts = list(deltas(thinking, THOUGHT, tools=TOOLS))
    assert "".join(delta.get("reasoning_content", "") for delta, _ in parts) == "Hm."
    assert joined(parts)["content"] == "I look."
    assert calls(joined(parts)) == calls(told)


def test_without_tools_it_still_tells_reasoning_and_no_call(thinking) -> None:
    told = message(thinking.chat(THOUGHT))
    assert told["reasoning_content"] == "Hm."
    assert "tool_calls" not in told
    assert told["content"].endswith(CALL)


def test_without_a_response_template_thoughts_are_content(saying) -> None:
    told = message(saying.chat("<think>Hm.</think>Hi"))
    assert told["content"] == "<think>Hm.</think>Hi"
    assert "reasoning_content" not in told


def test_markers_that_are_special_tokens_are_seen(tmp_path) -> None:
    """Tokens that otherwise yield no text."""
    folder = write_tool_model(tmp_path / "special")
    path = folder / "tokenizer.json"
    tokenizer = json.loads(path.read_text("utf-8"))
    last = max(tokenizer["model"]["vocab"].values())
    for name, id in {"<tool_call>": last, "</tool_call>": last - 1}.items():
        word = next(word for word, place in tokenizer["model"]["vocab"].items() if place == id)
        del tokenizer["model"]["vocab"][word]
        tokenizer["model"]["vocab"][name] = id
        tokenizer["added_tokens"].append(
            {"id": id, "content": name, "special": True, "single_word": False, "lstrip": False, "rstrip": False,
             "normalized": False}
        )  # fmt: skip
    tokenizer["model"]["merges"] = []
    path.write_text(json.dumps(tokenizer))
    server = SayingServer(folder)
    assert calls(message(server.chat(CALL, tools=TOOLS))) == [("get_weather", '{"city": "Paris"}')]
    assert "<tool_call>" not in message(server.chat(CALL))["content"]
