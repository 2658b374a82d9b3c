"""What an answer's text turns out to be: words, reasoning, tool calls. The readers of it share this vocabulary."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class ParsedCallDelta:
    """Some of a tool call: its name comes first and alone, then its arguments bit by bit."""

    index: int
    name: str | None = None
    arguments: str = ""


@dataclass(frozen=True)
class ParsedDelta:
    """What some more text added to an answer."""

    text: str = ""
    reasoning: str = ""
    calls: tuple[ParsedCallDelta, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.text or self.reasoning or self.calls)

    def followed_by(self, other: "ParsedDelta") -> "ParsedDelta":
        calls = merge_call_deltas((*self.calls, *other.calls))
        return ParsedDelta(self.text + other.text, self.reasoning + other.reasoning, calls)


class DeltaParser(Protocol):
    """Takes an answer's text in pieces of any size; joined, what it tells does not depend on the sizes."""

    @property
    def done(self) -> bool:
        """The answer is complete: whatever else the model writes is not part of it."""

    def feed(self, text: str) -> ParsedDelta: ...

    def finish(self) -> ParsedDelta:
        """The rest, when no more text comes."""


class PlainTextParser:
    """The answer is its text."""

    done = False

    def feed(self, text: str) -> ParsedDelta:
        return ParsedDelta(text)

    def finish(self) -> ParsedDelta:
        return ParsedDelta()


def merge_call_deltas(deltas: Iterable[ParsedCallDelta]) -> tuple[ParsedCallDelta, ...]:
    """Neighbouring bits of the same arguments as one."""
    found: list[ParsedCallDelta] = []
    for delta in deltas:
        last = found[-1] if found else None
        if last and last.name is None and delta.name is None and last.index == delta.index:
            found[-1] = ParsedCallDelta(delta.index, arguments=last.arguments + delta.arguments)
        else:
            found.append(delta)
    return tuple(found)
