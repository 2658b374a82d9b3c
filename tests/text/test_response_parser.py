"""A checkpoint's response template: the library's own reading, as a stream that loses nothing."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.cli.serving.utils import _RESPONSE_TEMPLATE_FALLBACKS
from transformers.utils.chat_parsing import parse_response

from millm.text.chat_template import Function
from millm.text.response_parser import ResponseTemplate
from tests.text.tool_call_samples import cuts, fed, whole_calls

TEMPLATES = {names[0]: spec for names, spec in _RESPONSE_TEMPLATE_FALLBACKS.items()}
"""Those that transformers itself keeps for families whose checkpoints ship none: qwen2, qwen3_5, gemma4."""

PARAMETERS = {"type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer"}}}
FUNCTIONS = [Function("get_weather", "The weather.", PARAMETERS), Function("get_time")]
IM = "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"

CALL = '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Paris", "days": 2}}\n</tool_call>'
XML = (
    "<tool_call>\n<function=get_weather>\n<parameter=city>\nParis\n</parameter>\n"
    "<parameter=days>\n2\n</parameter>\n</function>\n</tool_call>"
)
GEMMA = '<|tool_call>call:get_weather{city:<|"|>Paris<|"|>,days:2}<tool_call|>'
RECORDED = {
    "words": ("qwen2", IM, "Hello there.\n"),
    "thoughts": ("qwen2", IM, "<think>\nHm, a greeting.\n</think>\n\nHello!"),
    "thoughts begun by the prompt": ("qwen2", IM + "<think>\n", "Hm.\n</think>\n\nHello!"),
    "a call": ("qwen2", IM, f"Let me look.\n{CALL}"),
    "two calls": ("qwen2", IM, f"{CALL}\n{CALL.replace('Paris', 'Rome')}"),
    "thoughts and a call": ("qwen2", IM, f"<think>\nHm.\n</think>\n\n{CALL}"),
    "tags": ("qwen3_5", IM + "<think>\n", f"Hm.\n</think>\n\nI look.\n\n{XML}"),
    "gemma": ("gemma4", "<|turn>user\nhi<turn|>\n<|turn>model\n", f"<|channel>thought\nHm.<channel|>{GEMMA}"),
    "gemma's words": ("gemma4", "<|turn>model\n", "Hello, 1 < 2."),
}


def template_of(folder: Path, spec: Any) -> ResponseTemplate | None:
    (folder / "tokenizer_config.json").write_text(json.dumps({"response_template": spec}))
    return ResponseTemplate.from_folder(folder)


@pytest.fixture(scope="module")
def templates(tmp_path_factory: pytest.TempPathFactory) -> dict[str, ResponseTemplate]:
    found = {name: template_of(tmp_path_factory.mktemp(name), spec) for name, spec in TEMPLATES.items()}
    assert all(found.values())
    return found


@pytest.mark.parametrize("name", RECORDED)
def test_result_equals_the_librarys(templates, name: str) -> None:
    family, prompt, text = RECORDED[name]
    told = fed(templates[family].create_parser(prompt, FUNCTIONS, parallel=True), [text])
    tools = [function.as_tool() for function in FUNCTIONS]
    theirs = parse_response(text, TEMPLATES[family], prefix=prompt, tools=tools)
    assert told.text == theirs.get("content", "")
    assert told.reasoning == theirs.get("reasoning_content", theirs.get("thinking", ""))  # 5.23's name, 5.17's name
    called = [(name, json.loads(arguments)) for name, arguments in whole_calls(told.calls)]
    assert called == [
        (call["function"]["name"], call["function"]["arguments"]) for call in theirs.get("tool_calls", [])
    ]


@pytest.mark.parametrize("name", RECORDED)
def test_result_does_not_depend_on_the_split(templates, name: str) -> None:
    family, prompt, text = RECORDED[name]
    template = templates[family]
    whole = fed(template.create_parser(prompt, FUNCTIONS, parallel=True), [text])
    for place in range(len(text) + 1):
        assert fed(template.create_parser(prompt, FUNCTIONS, parallel=True), cuts(text, [place])) == whole


LOST = {
    "no JSON": "<tool_call>\nget_weather(Paris)\n</tool_call>",
    "unknown function": CALL.replace("get_weather", "delete_all"),
    "cut off": CALL[:40],
    "no name": '<tool_call>{"arguments": {}}</tool_call>',
    "a list": "<tool_call>[1]</tool_call>",
}


@pytest.mark.parametrize("name", LOST)
def test_invalid_calls_are_text(templates, name: str) -> None:
    told = fed(templates["qwen2"].create_parser(IM, FUNCTIONS, parallel=True), ["Look: ", LOST[name]])
    assert told.text == f"Look: {LOST[name]}"
    assert told.calls == ()


@settings(deadline=None)
@given(
    st.lists(
        st.sampled_from(["<think>", "</think>", "<tool_call>", "</tool_call>", "{}", CALL, " a", "\n"]), max_size=8
    ),
    st.lists(st.integers(0, 200), max_size=6),
)
def test_random_mixtures_do_not_depend_on_the_split(templates, pieces: list[str], where: list[int]) -> None:
    template, text = templates["qwen2"], "".join(pieces)
    whole = fed(template.create_parser(IM, FUNCTIONS, parallel=True), [text])
    assert fed(template.create_parser(IM, FUNCTIONS, parallel=True), cuts(text, where)) == whole
    assert whole.text.count("a") + whole.reasoning.count("a") >= text.replace(CALL, "").count(" a")


def test_text_is_streamed(templates) -> None:
    reader = templates["qwen2"].create_parser(IM, FUNCTIONS, parallel=True)
    assert reader.feed("<think>\nHm").reasoning == "Hm"
    assert reader.feed("m</think>\n\nHello").text == "Hello"
    assert reader.feed(" you <to").text == " you"
    assert reader.finish().text == " <to"


def test_only_the_first_call_without_parallel_calls(templates) -> None:
    reader = templates["qwen2"].create_parser(IM, FUNCTIONS, parallel=False)
    told = fed(reader, [CALL, CALL])
    assert reader.done
    assert len(whole_calls(told.calls)) == 1
    assert told.text == ""


@pytest.mark.parametrize("spec", [{"version": 2}, {"fields": {}}, {"fields": {"content": {"open_pattern": "("}}}])
def test_an_invalid_template_is_ignored(tmp_path: Path, spec: dict[str, Any]) -> None:
    assert template_of(tmp_path, spec) is None


def test_a_model_without_a_template_has_none(tmp_path: Path) -> None:
    assert ResponseTemplate.from_folder(tmp_path) is None
    assert template_of(tmp_path, "text") is None


def test_source_text_contains_the_special_tokens(templates) -> None:
    for token in ("<|im_end|>", "<|endoftext|>", "</tool_call>"):
        assert token in templates["qwen2"].source_text
    assert '<|"|>' in templates["gemma4"].source_text


def test_the_library_parser_does_not_import_torch() -> None:
    code = "import sys, transformers.utils.chat_parsing; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
