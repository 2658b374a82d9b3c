"""Calls between tags: independent of the split, streamed early, and without loss of text."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from millm.text.tool_calls import ForcedArgumentsParser, ForcedCallsParser, ParsedDelta, TaggedCallsParser
from tests.text.tool_call_samples import HERMES, OFFERED, WORDS, joined_calls, parse_pieces, split_at

places = st.lists(st.integers(0, 300), max_size=12)


@pytest.mark.parametrize("name", HERMES)
def test_calls_and_text_are_separated(name: str) -> None:
    text, words, calls = HERMES[name]
    delta = parse_pieces(TaggedCallsParser(OFFERED), [text])
    assert (delta.text, joined_calls(delta.calls)) == (words, calls)


@pytest.mark.parametrize("name", WORDS)
def test_text_without_a_call_is_unchanged(name: str) -> None:
    assert parse_pieces(TaggedCallsParser(OFFERED), [WORDS[name]]) == ParsedDelta(WORDS[name])


@pytest.mark.parametrize("several", [True, False])
@pytest.mark.parametrize("text", [*(text for text, _, _ in HERMES.values()), *WORDS.values()])
def test_result_does_not_depend_on_the_split(text: str, several: bool) -> None:
    expected = parse_pieces(TaggedCallsParser(OFFERED, parallel=several), [text])
    for index in range(len(text) + 1):
        assert parse_pieces(TaggedCallsParser(OFFERED, parallel=several), split_at(text, [index])) == expected
    assert parse_pieces(TaggedCallsParser(OFFERED, parallel=several), text) == expected


pieces = [
    "<tool_call>",
    "</tool_call>",
    '{"name": "get_time"',
    ', "arguments": {}',
    "}",
    "[",
    "]",
    ",",
    " ",
    "\n",
    "hi",
]


@given(st.lists(st.sampled_from(pieces), max_size=14).map("".join), places)
def test_random_mixtures_do_not_depend_on_the_split(text: str, split_indices: list[int]) -> None:
    expected = parse_pieces(TaggedCallsParser(OFFERED), [text])
    assert parse_pieces(TaggedCallsParser(OFFERED), split_at(text, split_indices)) == expected
    assert len(expected.text) + sum(len(delta.arguments) for delta in expected.calls) <= len(text) + 2 * len(
        expected.calls
    )


def test_name_and_arguments_are_streamed() -> None:
    parser = TaggedCallsParser(OFFERED)
    assert not parser.feed('<tool_call>{"name": "get_weather')
    (named,) = parser.feed('"').calls
    assert named.name == "get_weather"
    assert not parser.feed(', "arguments": ')
    assert [delta.arguments for delta in parser.feed('{"ci').calls] == ['{"ci']
    assert [delta.arguments for delta in parser.feed('ty": "Par').calls] == ['ty": "Par']


def test_text_is_held_back_only_while_a_tag_may_start() -> None:
    parser = TaggedCallsParser(OFFERED)
    assert parser.feed("Hello").text == "Hello"
    assert parser.feed(" <tool").text == ""
    assert parser.feed("box>").text == " <toolbox>"


def test_only_the_first_call_without_parallel_calls() -> None:
    text, _, calls = HERMES["a list, as SmolLM2 does"]
    parser = TaggedCallsParser(OFFERED, parallel=False)
    delta = parse_pieces(parser, [text])
    assert parser.done
    assert joined_calls(delta.calls) == calls[:1]
    assert delta.text == ""


@given(places)
def test_a_forced_call_does_not_depend_on_the_split(split_indices: list[int]) -> None:
    text = '[{"name":"get_time","arguments":{"zone":"a}b"}},{"name":"get_weather","arguments":{}}]'
    delta = parse_pieces(ForcedCallsParser(OFFERED), split_at(text, split_indices))
    assert joined_calls(delta.calls) == [("get_time", '{"zone":"a}b"}'), ("get_weather", "{}")]
    assert delta.text == ""


def test_a_truncated_forced_call_is_emitted_up_to_its_end() -> None:
    assert joined_calls(parse_pieces(ForcedCallsParser(OFFERED), ['{"name":"get_time","arguments":{"z']).calls) == [
        ("get_time", '{"z')
    ]
    assert parse_pieces(ForcedCallsParser(OFFERED), ['{"name":"ge']) == ParsedDelta('{"name":"ge')
    assert parse_pieces(ForcedCallsParser(OFFERED), ["no ", "call"]) == ParsedDelta("no call")
    broken = parse_pieces(ForcedCallsParser(OFFERED), ['{"name":"get_time","arguments":{}', "]", " more"])
    assert (broken.text, joined_calls(broken.calls)) == ("] more", [("get_time", "{}")])


@given(places)
def test_forced_arguments_are_the_text(split_indices: list[int]) -> None:
    text = '{"city":"Paris"}'
    assert joined_calls(parse_pieces(ForcedArgumentsParser("get_weather"), split_at(text, split_indices)).calls) == [
        ("get_weather", text)
    ]
    assert parse_pieces(ForcedArgumentsParser("get_weather"), ["", ""]) == ParsedDelta()
