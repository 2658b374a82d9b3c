"""Answers with correct and incorrect calls."""

import itertools
from collections.abc import Iterable, Sequence

from millm.text.tool_calls import DeltaParser, ParsedCallDelta, ParsedDelta

OFFERED = frozenset({"get_weather", "get_time"})

HERMES = {
    "one": (
        '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Paris"}}\n</tool_call>',
        "",
        [("get_weather", '{"city": "Paris"}')],
    ),
    "behind words": (
        'Let me look.\n<tool_call>\n{"name": "get_time", "arguments": {}}\n</tool_call>\n',
        "Let me look.",
        [("get_time", "{}")],
    ),
    "two": (
        '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Rome", "days": [1, 2.5e3, null]}}\n</tool_call>\n'
        '<tool_call>\n{"name": "get_time", "arguments": {"zone": "a\\"}b"}}\n</tool_call>',
        "",
        [("get_weather", '{"city": "Rome", "days": [1, 2.5e3, null]}'), ("get_time", '{"zone": "a\\"}b"}')],
    ),
    "a list, as SmolLM2 does": (
        '<tool_call>[{"name": "get_weather", "arguments": {"city": "Oslo"}},\n{"name": "get_time", "arguments": {}}]'
        "</tool_call>",
        "",
        [("get_weather", '{"city": "Oslo"}'), ("get_time", "{}")],
    ),
    "arguments first": (
        '<tool_call>{"arguments": {"city": "Bonn"}, "name": "get_weather"}</tool_call>',
        "",
        [("get_weather", '{"city": "Bonn"}')],
    ),
    "no arguments": ('<tool_call>{"name": "get_time"}</tool_call>', "", [("get_time", "{}")]),
    "more members": (
        '<tool_call>{"id": 5, "name": "get_time", "parameters": {"a": {"b": "}"}}, "why": ["{"]}</tool_call>',
        "",
        [("get_time", '{"a": {"b": "}"}}')],
    ),
    "words behind": (
        '<tool_call>{"name": "get_time", "arguments": {}}</tool_call> and so on',
        " and so on",
        [("get_time", "{}")],
    ),
    "no end": ('<tool_call>{"name": "get_time", "arguments": {}}', "", [("get_time", "{}")]),
    "half an end": ('<tool_call>{"name": "get_time", "arguments": {}}\n</tool', "", [("get_time", "{}")]),
    "an end forgotten": (
        '<tool_call>{"name": "get_time"}\n<tool_call>{"name": "get_weather"}</tool_call>',
        "",
        [("get_time", "{}"), ("get_weather", "{}")],
    ),
    "cut off": (
        '<tool_call>{"name": "get_weather", "arguments": {"city": "Par',
        "",
        [("get_weather", '{"city": "Par')],
    ),
    "broken in the arguments": (
        '<tool_call>{"name": "get_weather", "arguments": {"city": Paris}}</tool_call>',
        "Paris}}</tool_call>",
        [("get_weather", '{"city": ')],
    ),
}
"""Answer, and the text and calls in it."""

WORDS = {
    "plain": "Just words, 1 < 2 and <b>bold</b>.",
    "nothing": "",
    "spaces": " \n ",
    "half a marker": "see <tool_call",
    "a marker's beginning": "<tool_<tool_calls> <too",
    "unknown function": '<tool_call>{"name": "delete_all", "arguments": {}}</tool_call>',
    "no JSON": "<tool_call>get_weather(Paris)</tool_call>",
    "python": "<tool_call>{'name': 'get_time'}</tool_call>",
    "no name": '<tool_call>{"arguments": {}}</tool_call> tail',
    "an empty list": "<tool_call>[]</tool_call>",
    "a name cut off": '<tool_call>{"name": "get_wea',
    "arguments in a string": '<tool_call>{"arguments": "{}", "name": "get_time"}</tool_call>',
    "only a marker": "\n<tool_call>",
    "a word": " <tool_call>hi</tool_call>\n",
}
"""Text without a call, which stays unchanged."""


def parse_pieces(parser: DeltaParser, pieces: Iterable[str]) -> ParsedDelta:
    delta = ParsedDelta()
    for piece in pieces:
        delta = delta.followed_by(parser.feed(piece))
    return delta.followed_by(parser.finish())


def joined_calls(deltas: Sequence[ParsedCallDelta]) -> list[tuple[str, str]]:
    """Each call as (name, arguments), after a check that its name comes first and alone."""
    calls: list[list[str]] = []
    for delta in deltas:
        if delta.name is not None:
            assert (delta.index, delta.arguments) == (len(calls), "")
            calls.append([delta.name, ""])
        else:
            assert delta.index == len(calls) - 1
            calls[-1][1] += delta.arguments
    return [(name, arguments) for name, arguments in calls]


def split_at(text: str, indices: Iterable[int]) -> list[str]:
    borders = [0, *sorted(min(index, len(text)) for index in indices), len(text)]
    return [text[start:end] for start, end in itertools.pairwise(borders)]
