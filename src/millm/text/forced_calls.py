"""Answers that a grammar holds to be tool calls and nothing else: the text is told as the call it must become."""

from collections.abc import Container

from millm.text.call_steps import CallScanner
from millm.text.json_steps import NotJson
from millm.text.told import CallDelta, Told, joined


class ForcedArguments:
    """The text is the arguments of one function."""

    done = False

    def __init__(self, name: str) -> None:
        self._name: str | None = name

    def feed(self, text: str) -> Told:
        if not text:
            return Told()
        opening = () if self._name is None else (CallDelta(0, name=self._name),)
        self._name = None
        return Told(calls=(*opening, CallDelta(0, arguments=text)))

    def finish(self) -> Told:
        return Told()


class ForcedCalls:
    """The text is a call, or a list of calls. What is none, should there be any, stays text."""

    done = False

    def __init__(self, offered: Container[str]) -> None:
        self._scanner = CallScanner(offered)
        self._held = ""
        self._is_text = False
        """It has turned out to be something else."""

    def feed(self, text: str) -> Told:
        if self._is_text:
            return Told(text)
        deltas: list[CallDelta] = []
        for place, char in enumerate(text):
            try:
                told = [] if self._scanner.done else self._scanner.feed(char)
            except NotJson:
                self._is_text = True
                return Told(self._let_go() + text[place:], calls=joined(deltas))
            self._held = "" if told else self._held + char
            deltas += told
        return Told(calls=joined(deltas))

    def finish(self) -> Told:
        return Told() if self._scanner.begun else Told(self._let_go())

    def _let_go(self) -> str:
        held, self._held = self._held, ""
        return held
