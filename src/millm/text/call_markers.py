"""Tool calls between `<tool_call>` and `</tool_call>`, as Hermes, Qwen 2.5 and 3 and SmolLM2 write them.

Text goes out until a marker may begin. A call's name goes out when it is known, its arguments as they come. What turns
out to be no call is text again, from the first character that has not gone out; nothing is lost.
The form: https://github.com/NousResearch/Hermes-Function-Calling
"""

from collections.abc import Container

from millm.text.call_steps import ToolCallScanner
from millm.text.json_steps import NotJson
from millm.text.told import ParsedCallDelta, ParsedDelta, merge_call_deltas

OPEN_TAG, CLOSE_TAG = "<tool_call>", "</tool_call>"


class TaggedCallsParser:
    """Reads one answer. Space before a call and behind the last belongs to nobody."""

    def __init__(self, function_names: Container[str], *, parallel: bool = True) -> None:
        self.done = False
        self._function_names = function_names
        self._parallel = parallel
        self._call_count = 0
        self._pending = ""
        """What has not gone out, because a marker or a call may become of it."""
        self._scanner: ToolCallScanner | None = None
        self._is_after_call = False
        self._text: list[str] = []
        self._deltas: list[ParsedCallDelta] = []

    def feed(self, text: str) -> ParsedDelta:
        for char in text:
            self._feed_char(char)
        return self._take_delta()

    def finish(self) -> ParsedDelta:
        """A call that lacks only its end counts as one."""
        if self._scanner:
            is_over = self._scanner.started_calls > 0 and "{" not in self._pending
        else:
            is_over = self._is_after_call and self._pending.isspace()
        if not is_over:
            self._text.append(self._pending)
        self._pending = ""
        return self._take_delta()

    def _take_delta(self) -> ParsedDelta:
        told = ParsedDelta("".join(self._text), calls=merge_call_deltas(self._deltas))
        self._text, self._deltas = [], []
        return told

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
            self._release_char()
        if self._pending.lstrip() == OPEN_TAG:
            self._scanner = ToolCallScanner(self._function_names)

    def _release_char(self) -> None:
        """Of the first character that is held: it is text."""
        self._text.append(self._pending[0])
        self._pending = self._pending[1:]
        self._is_after_call = False

    def _scan_call(self, scanner: ToolCallScanner, char: str) -> None:
        try:
            told = scanner.feed(char)
        except NotJson:
            self._reject_call(scanner)
            return
        if told:
            self._deltas += [
                ParsedCallDelta(self._call_count + delta.index, delta.name, delta.arguments) for delta in told
            ]
            self._pending = ""
        self.done = not self._parallel and scanner.completed_calls > 0

    def _reject_call(self, scanner: ToolCallScanner) -> None:
        self._text.append(self._pending)
        self._leave_call(scanner)
        self._is_after_call = False

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
