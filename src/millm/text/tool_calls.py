"""Parse tool calls out of an answer while it is generated, as deltas of text, reasoning and calls.

A call is JSON, `{"name": …, "arguments": {…}}`, or a list of such objects.
"""

import json
from collections.abc import Container, Generator, Iterable
from dataclasses import dataclass
from typing import Protocol

from millm.text.json_stream import (
    NotJson,
    expect,
    scan_key,
    scan_members,
    scan_string,
    scan_value,
    skip_comma,
    skip_space,
)

OPEN_TAG, CLOSE_TAG = "<tool_call>", "</tool_call>"
_ARGUMENT_KEYS = ("arguments", "parameters")  # the keys of Hermes and of Llama


@dataclass(frozen=True)
class ParsedCallDelta:
    """Part of a tool call: first the name alone, then pieces of the arguments."""

    index: int
    name: str | None = None
    arguments: str = ""


@dataclass(frozen=True)
class ParsedDelta:
    """What some more text adds to an answer."""

    text: str = ""
    reasoning: str = ""
    calls: tuple[ParsedCallDelta, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.text or self.reasoning or self.calls)

    def followed_by(self, other: "ParsedDelta") -> "ParsedDelta":
        calls = merge_call_deltas((*self.calls, *other.calls))
        return ParsedDelta(self.text + other.text, self.reasoning + other.reasoning, calls)


class DeltaParser(Protocol):
    """Parses the text of one answer in pieces of any size; the joined deltas do not depend on the sizes."""

    @property
    def done(self) -> bool:
        """True when the answer is complete; later text is not part of it."""

    def feed(self, text: str) -> ParsedDelta: ...

    def finish(self) -> ParsedDelta:
        """The rest, at the end of the text."""


class PlainTextParser:
    """All text is text."""

    done = False

    def feed(self, text: str) -> ParsedDelta:
        return ParsedDelta(text)

    def finish(self) -> ParsedDelta:
        return ParsedDelta()


def merge_call_deltas(deltas: Iterable[ParsedCallDelta]) -> tuple[ParsedCallDelta, ...]:
    """Join neighbouring pieces of the same arguments."""
    merged: list[ParsedCallDelta] = []
    for delta in deltas:
        last = merged[-1] if merged else None
        if last and last.name is None and delta.name is None and last.index == delta.index:
            merged[-1] = ParsedCallDelta(delta.index, arguments=last.arguments + delta.arguments)
        else:
            merged.append(delta)
    return tuple(merged)


class ToolCallScanner:
    """Scans one call or a list of calls. A call of a name outside `function_names` is not a call."""

    def __init__(self, function_names: Container[str]) -> None:
        self.started_calls = 0  # calls whose name was emitted
        self.completed_calls = 0
        self.done = False
        self._function_names = function_names
        self._deltas: list[ParsedCallDelta] = []
        self._name: str | None = None
        self._pending_arguments: str | None = None  # arguments that were written before the name
        self._scan = self._scan_calls()
        next(self._scan)

    def feed(self, char: str) -> list[ParsedCallDelta]:
        """Deltas that this character completes. Raises NotJson when it cannot belong to a call."""
        self._deltas = []
        try:
            self._scan.send(char)
        except StopIteration:
            self.done = True
        return self._deltas

    def _scan_calls(self) -> Generator[None, str, None]:
        char = yield from skip_space(None)
        if char != "[":
            yield from self._scan_call(char)
            return
        char = yield from skip_space(None)
        while char != "]":
            yield from self._scan_call(char)
            char = yield from skip_comma(None, "]")
        if not self.started_calls:
            raise NotJson

    def _scan_call(self, first: str) -> Generator[None, str, None]:
        self._name = self._pending_arguments = None
        has_arguments = False
        expect(first, "{")
        char = yield from skip_space(None)
        while char != "}":
            name = yield from scan_key(char)
            first = yield from skip_space(None)
            after = None
            if name == "name":
                yield from self._scan_name(first)
            elif name in _ARGUMENT_KEYS and not has_arguments:
                yield from self._scan_arguments(first)
                has_arguments = True
            else:
                after = yield from scan_value(first, 1)
            char = yield from skip_comma(after, "}")
        self._end_call(has_arguments)

    def _scan_name(self, first: str) -> Generator[None, str, None]:
        expect(first, '"')
        name = json.loads(f'"{(yield from scan_string())}"')
        if self._name is not None or name not in self._function_names:
            raise NotJson
        self._name = name
        self._deltas.append(ParsedCallDelta(self.started_calls, name=name))
        self.started_calls += 1
        if self._pending_arguments:
            self._add_arguments(self._pending_arguments)

    def _scan_arguments(self, first: str) -> Generator[None, str, None]:
        expect(first, "{")
        self._add_arguments(first)
        members = scan_members()
        next(members)
        is_complete = False
        while not is_complete:
            char = yield
            try:
                members.send(char)
            except StopIteration:
                is_complete = True
            self._add_arguments(char)

    def _add_arguments(self, text: str) -> None:
        if self._name is None:
            self._pending_arguments = (self._pending_arguments or "") + text
        else:
            self._deltas.append(ParsedCallDelta(self.started_calls - 1, arguments=text))

    def _end_call(self, has_arguments: bool) -> None:
        if self._name is None:
            raise NotJson
        if not has_arguments:
            self._add_arguments("{}")
        self.completed_calls += 1


class TaggedCallsParser:
    """Parses calls between `<tool_call>` and `</tool_call>`, as written by Hermes, Qwen 2.5 and 3 and SmolLM2.

    Text is released until a tag may start; the name of a call once it is known, its arguments as they are written. A
    call that turns out invalid becomes text, from the first character that was not released. Whitespace around calls is
    discarded. Format: https://github.com/NousResearch/Hermes-Function-Calling
    """

    def __init__(self, function_names: Container[str], *, parallel: bool = True) -> None:
        self.done = False
        self._function_names = function_names
        self._parallel = parallel
        self._call_count = 0
        self._pending = ""  # text that is not released, because it may become a tag or a call
        self._scanner: ToolCallScanner | None = None
        self._is_after_call = False
        self._text: list[str] = []
        self._deltas: list[ParsedCallDelta] = []

    def feed(self, text: str) -> ParsedDelta:
        for char in text:
            self._feed_char(char)
        return self._take_delta()

    def finish(self) -> ParsedDelta:
        """The rest; a call that lacks only its closing tag or bracket counts."""
        if self._scanner:
            is_over = self._scanner.started_calls > 0 and "{" not in self._pending
        else:
            is_over = self._is_after_call and self._pending.isspace()
        if not is_over:
            self._text.append(self._pending)
        self._pending = ""
        return self._take_delta()

    def _take_delta(self) -> ParsedDelta:
        delta = ParsedDelta("".join(self._text), calls=merge_call_deltas(self._deltas))
        self._text, self._deltas = [], []
        return delta

    def _feed_char(self, char: str) -> None:
        if self.done:
            return
        self._pending += char
        if self._scanner is None:
            self._find_open_tag()
        elif self._scanner.done:
            self._find_close_tag(self._scanner)
        else:
            self._scan_call(self._scanner, char)

    def _find_open_tag(self) -> None:
        while self._pending and not OPEN_TAG.startswith(self._pending.lstrip()[: len(OPEN_TAG)]):
            self._text.append(self._pending[0])
            self._pending = self._pending[1:]
            self._is_after_call = False
        if self._pending.lstrip() == OPEN_TAG:
            self._scanner = ToolCallScanner(self._function_names)

    def _scan_call(self, scanner: ToolCallScanner, char: str) -> None:
        try:
            deltas = scanner.feed(char)
        except NotJson:
            self._text.append(self._pending)
            self._leave_call(scanner)
            self._is_after_call = False
            return
        if deltas:
            self._deltas += [
                ParsedCallDelta(self._call_count + delta.index, delta.name, delta.arguments) for delta in deltas
            ]
            self._pending = ""
        self.done = not self._parallel and scanner.completed_calls > 0

    def _find_close_tag(self, scanner: ToolCallScanner) -> None:
        end = self._pending[self._pending.rfind("}") + 1 :].lstrip(" \t\n\r]")
        if end == CLOSE_TAG:
            self._leave_call(scanner)
        elif not CLOSE_TAG.startswith(end):
            self._leave_call(scanner)
            for char in end:
                self._feed_char(char)

    def _leave_call(self, scanner: ToolCallScanner) -> None:
        self._call_count += scanner.started_calls
        self._is_after_call = True
        self._scanner = None
        self._pending = ""


class ForcedArgumentsParser:
    """For answers whose grammar admits only the arguments of one function."""

    done = False

    def __init__(self, name: str) -> None:
        self._name: str | None = name

    def feed(self, text: str) -> ParsedDelta:
        if not text:
            return ParsedDelta()
        opening = () if self._name is None else (ParsedCallDelta(0, name=self._name),)
        self._name = None
        return ParsedDelta(calls=(*opening, ParsedCallDelta(0, arguments=text)))

    def finish(self) -> ParsedDelta:
        return ParsedDelta()


class ForcedCallsParser:
    """For answers whose grammar admits only a call or a list of calls; any other text stays text."""

    done = False

    def __init__(self, function_names: Container[str]) -> None:
        self._scanner = ToolCallScanner(function_names)
        self._pending = ""
        self._is_text = False  # True after text that is not a call

    def feed(self, text: str) -> ParsedDelta:
        if self._is_text:
            return ParsedDelta(text)
        deltas: list[ParsedCallDelta] = []
        for index, char in enumerate(text):
            try:
                new_deltas = [] if self._scanner.done else self._scanner.feed(char)
            except NotJson:
                self._is_text = True
                return ParsedDelta(self._take_pending() + text[index:], calls=merge_call_deltas(deltas))
            self._pending = "" if new_deltas else self._pending + char
            deltas += new_deltas
        return ParsedDelta(calls=merge_call_deltas(deltas))

    def finish(self) -> ParsedDelta:
        return ParsedDelta() if self._scanner.started_calls else ParsedDelta(self._take_pending())

    def _take_pending(self) -> str:
        pending, self._pending = self._pending, ""
        return pending
