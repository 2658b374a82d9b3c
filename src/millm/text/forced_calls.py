"""Answers that a grammar holds to be tool calls and nothing else: the text is told as the call it must become."""

from collections.abc import Container

from millm.text.call_steps import ToolCallScanner
from millm.text.json_steps import NotJson
from millm.text.told import ParsedCallDelta, ParsedDelta, merge_call_deltas


class ForcedArgumentsParser:
    """The text is the arguments of one function."""

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
    """The text is a call, or a list of calls. What is none, should there be any, stays text."""

    done = False

    def __init__(self, function_names: Container[str]) -> None:
        self._scanner = ToolCallScanner(function_names)
        self._pending = ""
        self._is_text = False
        """It has turned out to be something else."""

    def feed(self, text: str) -> ParsedDelta:
        if self._is_text:
            return ParsedDelta(text)
        deltas: list[ParsedCallDelta] = []
        for place, char in enumerate(text):
            try:
                told = [] if self._scanner.done else self._scanner.feed(char)
            except NotJson:
                self._is_text = True
                return ParsedDelta(self._take_pending() + text[place:], calls=merge_call_deltas(deltas))
            self._pending = "" if told else self._pending + char
            deltas += told
        return ParsedDelta(calls=merge_call_deltas(deltas))

    def finish(self) -> ParsedDelta:
        return ParsedDelta() if self._scanner.started_calls else ParsedDelta(self._take_pending())

    def _take_pending(self) -> str:
        held, self._pending = self._pending, ""
        return held
