"""Tool calls as JSON, `{"name": …, "arguments": {…}}` or a list of them, told while they are still being written."""

import json
from collections.abc import Container, Generator

from millm.text.json_steps import NotJson, expect, key, members, past_comma, past_space, string, value
from millm.text.told import CallDelta

_ARGUMENTS = ("arguments", "parameters")
"""Hermes' and Llama's word for it."""


class CallScanner:
    """One call, or a list of them."""

    def __init__(self, offered: Container[str]) -> None:
        """`offered`: the names that can be called; a call of another is none."""
        self.begun = 0
        """Calls whose name is told."""
        self.ended = 0
        """Calls that are complete."""
        self.done = False
        self._offered = offered
        self._told: list[CallDelta] = []
        self._name: str | None = None
        self._early: str | None = None
        """Arguments that came before their name."""
        self._steps = self._one_or_several()
        next(self._steps)

    def feed(self, char: str) -> list[CallDelta]:
        """What this character completes. Raises NotJson where it cannot belong to a call."""
        self._told = []
        try:
            self._steps.send(char)
        except StopIteration:
            self.done = True
        return self._told

    def _one_or_several(self) -> Generator[None, str, None]:
        char = yield from past_space(None)
        if char != "[":
            yield from self._call(char)
            return
        char = yield from past_space(None)
        while char != "]":
            yield from self._call(char)
            char = yield from past_comma(None, "]")
        if not self.begun:
            raise NotJson

    def _call(self, first: str) -> Generator[None, str, None]:
        self._name = self._early = None
        has_arguments = False
        expect(first, "{")
        char = yield from past_space(None)
        while char != "}":
            name = yield from key(char)
            first = yield from past_space(None)
            after = None
            if name == "name":
                yield from self._named(first)
            elif name in _ARGUMENTS and not has_arguments:
                yield from self._arguments(first)
                has_arguments = True
            else:
                after = yield from value(first, 1)
            char = yield from past_comma(after, "}")
        self._end(has_arguments)

    def _named(self, first: str) -> Generator[None, str, None]:
        expect(first, '"')
        name = json.loads(f'"{(yield from string())}"')
        if self._name is not None or name not in self._offered:
            raise NotJson
        self._name = name
        self._told.append(CallDelta(self.begun, name=name))
        self.begun += 1
        if self._early:
            self._argue(self._early)

    def _arguments(self, first: str) -> Generator[None, str, None]:
        expect(first, "{")
        self._argue(first)
        steps = members()
        next(steps)
        ended = False
        while not ended:
            char = yield
            try:
                steps.send(char)
            except StopIteration:
                ended = True
            self._argue(char)

    def _argue(self, text: str) -> None:
        if self._name is None:
            self._early = (self._early or "") + text
        else:
            self._told.append(CallDelta(self.begun - 1, arguments=text))

    def _end(self, has_arguments: bool) -> None:
        if self._name is None:
            raise NotJson
        if not has_arguments:
            self._argue("{}")
        self.ended += 1
