"""Calls between markers: the same however the text is cut, told as early as can be, and nothing is ever lost."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from millm.text.tool_calls import ForcedArgumentsParser, ForcedCallsParser, ParsedDelta, TaggedCallsParser
from tests.text.tool_call_samples import HERMES, OFFERED, WORDS, cuts, fed, whole_calls

places = st.lists(st.integers(0, 300), max_size=12)


@pytest.mark.parametrize("name", HERMES)
def test_calls_and_text_are_separated(name: str) -> None:
    text, words, calls = HERMES[name]
    told = fed(TaggedCallsParser(OFFERED), [text])
    assert (told.text, whole_calls(told.calls)) == (words, calls)


@pytest.mark.parametrize("name", WORDS)
def test_text_without_a_call_is_unchanged(name: str) -> None:
    assert fed(TaggedCallsParser(OFFERED), [WORDS[name]]) == ParsedDelta(WORDS[name])


@pytest.mark.parametrize("several", [True, False])
@pytest.mark.parametrize("text", [*(text for text, _, _ in HERMES.values()), *WORDS.values()])
def test_result_does_not_depend_on_the_split(text: str, several: bool) -> None:
    whole = fed(TaggedCallsParser(OFFERED, parallel=several), [text])
    for place in range(len(text) + 1):
        assert fed(TaggedCallsParser(OFFERED, parallel=several), cuts(text, [place])) == whole
    assert fed(TaggedCallsParser(OFFERED, parallel=several), text) == whole


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
def test_random_mixtures_do_not_depend_on_the_split(text: str, where: list[int]) -> None:
    whole = fed(TaggedCallsParser(OFFERED), [text])
    assert fed(TaggedCallsParser(OFFERED), cuts(text, where)) == whole
    assert len(whole.text) + sum(len(delta.arguments) for delta in whole.calls) <= len(text) + 2 * len(whole.calls)


def test_name_and_arguments_are_streamed() -> None:
    reader = TaggedCallsParser(OFFERED)
    assert not reader.feed('<tool_call>{"name": "get_weather')
    (named,) = reader.feed('"').calls
    assert named.name == "get_weather"
    assert not reader.feed(', "arguments": ')
    assert [delta.arguments for delta in reader.feed('{"ci').calls] == ['{"ci']
    assert [delta.arguments for delta in reader.feed('ty": "Par').calls] == ['ty": "Par']


def test_text_is_held_back_only_while_a_tag_may_start() -> None:
    reader = TaggedCallsParser(OFFERED)
    assert reader.feed("Hello").text == "Hello"
    assert reader.feed(" <tool").text == ""
    assert reader.feed("box>").text == " <toolbox>"


def test_only_the_first_call_without_parallel_calls() -> None:
    text, _, calls = HERMES["a list, as SmolLM2 does"]
    reader = TaggedCallsParser(OFFERED, parallel=False)
    told = fed(reader, [text])
    assert reader.done
    assert whole_calls(told.calls) == calls[:1]
    assert told.text == ""


@given(places)
def test_a_forced_call_does_not_depend_on_the_split(where: list[int]) -> None:
    text = '[{"name":"get_time","arguments":{"zone":"a}b"}},{"name":"get_weather","arguments":{}}]'
    told = fed(ForcedCallsParser(OFFERED), cuts(text, where))
    assert whole_calls(told.calls) == [("get_time", '{"zone":"a}b"}'), ("get_weather", "{}")]
    assert told.text == ""


def test_a_truncated_forced_call_is_emitted_up_to_its_end() -> None:
    assert whole_calls(fed(ForcedCallsParser(OFFERED), ['{"name":"get_time","arguments":{"z']).calls) == [
        ("get_time", '{"z')
    ]
    assert fed(ForcedCallsParser(OFFERED), ['{"name":"ge']) == ParsedDelta('{"name":"ge')
    assert fed(ForcedCallsParser(OFFERED), ["no ", "call"]) == ParsedDelta("no call")
    broken = fed(ForcedCallsParser(OFFERED), ['{"name":"get_time","arguments":{}', "]", " more"])
    assert (broken.text, whole_calls(broken.calls)) == ("] more", [("get_time", "{}")])


@given(places)
def test_forced_arguments_are_the_text(where: list[int]) -> None:
    text = '{"city":"Paris"}'
    assert whole_calls(fed(ForcedArgumentsParser("get_weather"), cuts(text, where)).calls) == [("get_weather", text)]
    assert fed(ForcedArgumentsParser("get_weather"), ["", ""]) == ParsedDelta()
