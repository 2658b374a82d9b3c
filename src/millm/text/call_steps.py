"""Tool calls as JSON, `{"name": …, "arguments": {…}}` or a list of them, told while they are still being written."""

import json
from collections.abc import Container, Generator

from millm.text.json_steps import (
    NotJson,
    expect,
    scan_key,
    scan_members,
    scan_string,
    scan_value,
    skip_comma,
    skip_space,
)
from millm.text.told import ParsedCallDelta

_ARGUMENT_KEYS = ("arguments", "parameters")
"""Hermes' and Llama's word for it."""


class ToolCallScanner:
    """One call, or a list of them."""

    def __init__(self, function_names: Container[str]) -> None:
        """`offered`: the names that can be called; a call of another is none."""
        self.started_calls = 0
        """Calls whose name is told."""
        self.completed_calls = 0
        """Calls that are complete."""
        self.done = False
        self._function_names = function_names
        self._deltas: list[ParsedCallDelta] = []
        self._name: str | None = None
        self._pending_arguments: str | None = None
        """Arguments that came before their name."""
        self._scan = self._scan_calls()
        next(self._scan)

    def feed(self, char: str) -> list[ParsedCallDelta]:
        """What this character completes. Raises NotJson where it cannot belong to a call."""
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
        steps = scan_members()
        next(steps)
        ended = False
        while not ended:
            char = yield
            try:
                steps.send(char)
            except StopIteration:
                ended = True
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
