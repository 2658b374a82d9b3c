"""Streaming with a response template equals the library's own parser and loses no text."""

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
from tests.text.tool_call_samples import joined_calls, parse_pieces, split_at

TEMPLATES = {names[0]: spec for names, spec in _RESPONSE_TEMPLATE_FALLBACKS.items()}
"""transformers' own templates for families without one: qwen2, qwen3_5, gemma4."""

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


def write_template(folder: Path, spec: Any) -> ResponseTemplate | None:
    (folder / "tokenizer_config.json").write_text(json.dumps({"response_template": spec}))
    return ResponseTemplate.from_folder(folder)


@pytest.fixture(scope="module")
def templates(tmp_path_factory: pytest.TempPathFactory) -> dict[str, ResponseTemplate]:
    templates = {name: write_template(tmp_path_factory.mktemp(name), spec) for name, spec in TEMPLATES.items()}
    assert all(templates.values())
    return templates


@pytest.mark.parametrize("name", RECORDED)
def test_result_equals_the_librarys(templates, name: str) -> None:
    family, prompt, text = RECORDED[name]
    delta = parse_pieces(templates[family].create_parser(prompt, FUNCTIONS, parallel=True), [text])
    tools = [function.as_tool() for function in FUNCTIONS]
    reference = parse_response(text, TEMPLATES[family], prefix=prompt, tools=tools)
    assert delta.text == reference.get("content", "")
    assert delta.reasoning == reference.get(
        "reasoning_content", reference.get("thinking", "")
    )  # 5.23's name, 5.17's name
    called = [(name, json.loads(arguments)) for name, arguments in joined_calls(delta.calls)]
    assert called == [
        (call["function"]["name"], call["function"]["arguments"]) for call in reference.get("tool_calls", [])
    ]


@pytest.mark.parametrize("name", RECORDED)
def test_result_does_not_depend_on_the_split(templates, name: str) -> None:
    family, prompt, text = RECORDED[name]
    template = templates[family]
    expected = parse_pieces(template.create_parser(prompt, FUNCTIONS, parallel=True), [text])
    for index in range(len(text) + 1):
        assert (
            parse_pieces(template.create_parser(prompt, FUNCTIONS, parallel=True), split_at(text, [index])) == expected
        )


LOST = {
    "no JSON": "<tool_call>\nget_weather(Paris)\n</tool_call>",
    "unknown function": CALL.replace("get_weather", "delete_all"),
    "cut off": CALL[:40],
    "no name": '<tool_call>{"arguments": {}}</tool_call>',
    "a list": "<tool_call>[1]</tool_call>",
}


@pytest.mark.parametrize("name", LOST)
def test_invalid_calls_are_text(templates, name: str) -> None:
    delta = parse_pieces(templates["qwen2"].create_parser(IM, FUNCTIONS, parallel=True), ["Look: ", LOST[name]])
    assert delta.text == f"Look: {LOST[name]}"
    assert delta.calls == ()


@settings(deadline=None)
@given(
    st.lists(
        st.sampled_from(["<think>", "</think>", "<tool_call>", "</tool_call>", "{}", CALL, " a", "\n"]), max_size=8
    ),
    st.lists(st.integers(0, 200), max_size=6),
)
def test_random_mixtures_do_not_depend_on_the_split(templates, pieces: list[str], split_indices: list[int]) -> None:
    template, text = templates["qwen2"], "".join(pieces)
    expected = parse_pieces(template.create_parser(IM, FUNCTIONS, parallel=True), [text])
    assert parse_pieces(template.create_parser(IM, FUNCTIONS, parallel=True), split_at(text, split_indices)) == expected
    assert expected.text.count("a") + expected.reasoning.count("a") >= text.replace(CALL, "").count(" a")


def test_text_is_streamed(templates) -> None:
    parser = templates["qwen2"].create_parser(IM, FUNCTIONS, parallel=True)
    assert parser.feed("<think>\nHm").reasoning == "Hm"
    assert parser.feed("m</think>\n\nHello").text == "Hello"
    assert parser.feed(" you <to").text == " you"
    assert parser.finish().text == " <to"


def test_only_the_first_call_without_parallel_calls(templates) -> None:
    parser = templates["qwen2"].create_parser(IM, FUNCTIONS, parallel=False)
    delta = parse_pieces(parser, [CALL, CALL])
    assert parser.done
    assert len(joined_calls(delta.calls)) == 1
    assert delta.text == ""


@pytest.mark.parametrize("spec", [{"version": 2}, {"fields": {}}, {"fields": {"content": {"open_pattern": "("}}}])
def test_an_invalid_template_is_ignored(tmp_path: Path, spec: dict[str, Any]) -> None:
    assert write_template(tmp_path, spec) is None


def test_a_model_without_a_template_has_none(tmp_path: Path) -> None:
    assert ResponseTemplate.from_folder(tmp_path) is None
    assert write_template(tmp_path, "text") is None


def test_source_text_contains_the_special_tokens(templates) -> None:
    for token in ("<|im_end|>", "<|endoftext|>", "</tool_call>"):
        assert token in templates["qwen2"].source_text
    assert '<|"|>' in templates["gemma4"].source_text


def test_the_library_parser_does_not_import_torch() -> None:
    code = "import sys, transformers.utils.chat_parsing; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
