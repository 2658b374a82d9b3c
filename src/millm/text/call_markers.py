"""Tool calls between `<tool_call>` and `</tool_call>`, as Hermes, Qwen 2.5 and 3 and SmolLM2 write them.

Text goes out until a marker may begin. A call's name goes out when it is known, its arguments as they come. What turns
out to be no call is text again, from the first character that has not gone out; nothing is lost.
The form: https://github.com/NousResearch/Hermes-Function-Calling
"""

from collections.abc import Container

from millm.text.call_steps import CallScanner
from millm.text.json_steps import NotJson
from millm.text.told import CallDelta, Told, joined

OPEN, CLOSE = "<tool_call>", "</tool_call>"


class MarkedCalls:
    """Reads one answer. Space before a call and behind the last belongs to nobody."""

    def __init__(self, offered: Container[str], *, several: bool = True) -> None:
        self.done = False
        self._offered = offered
        self._several = several
        self._calls = 0
        self._held = ""
        """What has not gone out, because a marker or a call may become of it."""
        self._scanner: CallScanner | None = None
        self._behind_call = False
        self._text: list[str] = []
        self._deltas: list[CallDelta] = []

    def feed(self, text: str) -> Told:
        for char in text:
            self._step(char)
        return self._take()

    def finish(self) -> Told:
        """A call that lacks only its end counts as one."""
        if self._scanner:
            is_over = self._scanner.begun > 0 and "{" not in self._held
        else:
            is_over = self._behind_call and self._held.isspace()
        if not is_over:
            self._text.append(self._held)
        self._held = ""
        return self._take()

    def _take(self) -> Told:
        told = Told("".join(self._text), calls=joined(self._deltas))
        self._text, self._deltas = [], []
        return told

    def _step(self, char: str) -> None:
        if self.done:
            return
        self._held += char
        if self._scanner is None:
            self._look_for_a_marker()
        elif self._scanner.done:
            self._look_for_the_end(self._scanner)
        else:
            self._scan(self._scanner, char)

    def _look_for_a_marker(self) -> None:
        while self._held and not OPEN.startswith(self._held.lstrip()[: len(OPEN)]):
            self._let_go()
        if self._held.lstrip() == OPEN:
            self._scanner = CallScanner(self._offered)

    def _let_go(self) -> None:
        """Of the first character that is held: it is text."""
        self._text.append(self._held[0])
        self._held = self._held[1:]
        self._behind_call = False

    def _scan(self, scanner: CallScanner, char: str) -> None:
        try:
            told = scanner.feed(char)
        except NotJson:
            self._give_up(scanner)
            return
        if told:
            self._deltas += [CallDelta(self._calls + delta.index, delta.name, delta.arguments) for delta in told]
            self._held = ""
        self.done = not self._several and scanner.ended > 0

    def _give_up(self, scanner: CallScanner) -> None:
        self._text.append(self._held)
        self._leave(scanner)
        self._behind_call = False

    def _look_for_the_end(self, scanner: CallScanner) -> None:
        end = self._held[self._held.rfind("}") + 1 :].lstrip(" \t\n\r]")
        if end == CLOSE:
            self._leave(scanner)
        elif not CLOSE.startswith(end):
            self._leave(scanner)
            for char in end:
                self._step(char)

    def _leave(self, scanner: CallScanner) -> None:
        self._calls += scanner.begun
        self._behind_call = True
        self._scanner = None
        self._held = ""
