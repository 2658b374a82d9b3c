"""An item of a response while it is written: what begins it, adds to it and ends it, as events."""

import uuid

from millm.openai.responses.answer import FunctionCall, Item, Message, OutputText, Progress, Reasoning, ReasoningText
from millm.openai.responses.events import (
    ArgumentsDelta,
    ArgumentsDone,
    Event,
    ItemAdded,
    ItemDone,
    PartAdded,
    PartDone,
    ReasoningDelta,
    ReasoningDone,
    TextDelta,
    TextDone,
)
from millm.openai.schemas.answers import ChosenLikelihood

Logprobs = tuple[ChosenLikelihood, ...]


def _new_id(kind: str) -> str:
    return f"{kind}_{uuid.uuid4().hex}"


class OpenMessage:
    """Words for the user: one part of text."""

    def __init__(self, place: int) -> None:
        self._id = _new_id("msg")
        self._place = place
        self._text: list[str] = []
        self._logprobs: list[ChosenLikelihood] = []

    def begin(self) -> list[Event]:
        return [
            ItemAdded(output_index=self._place, item=Message(id=self._id, status="in_progress")),
            PartAdded(item_id=self._id, output_index=self._place, part=OutputText()),
        ]

    def add(self, text: str, logprobs: Logprobs) -> Event:
        self._text.append(text)
        self._logprobs += logprobs
        return TextDelta(item_id=self._id, output_index=self._place, delta=text, logprobs=logprobs)

    def item(self, status: Progress) -> Item:
        return Message(id=self._id, status=status, content=(self._part(),))

    def end(self, status: Progress) -> list[Event]:
        part = self._part()
        return [
            TextDone(item_id=self._id, output_index=self._place, text=part.text, logprobs=part.logprobs),
            PartDone(item_id=self._id, output_index=self._place, part=part),
            ItemDone(output_index=self._place, item=self.item(status)),
        ]

    def _part(self) -> OutputText:
        return OutputText(text="".join(self._text), logprobs=tuple(self._logprobs))


class OpenReasoning:
    """What the model says to itself: one part of text."""

    def __init__(self, place: int) -> None:
        self._id = _new_id("rs")
        self._place = place
        self._text: list[str] = []

    def begin(self) -> list[Event]:
        return [
            ItemAdded(output_index=self._place, item=Reasoning(id=self._id, status="in_progress")),
            PartAdded(item_id=self._id, output_index=self._place, part=ReasoningText()),
        ]

    def add(self, text: str) -> Event:
        self._text.append(text)
        return ReasoningDelta(item_id=self._id, output_index=self._place, delta=text)

    def item(self, status: Progress) -> Item:
        return Reasoning(id=self._id, status=status, content=(self._part(),))

    def end(self, status: Progress) -> list[Event]:
        part = self._part()
        return [
            ReasoningDone(item_id=self._id, output_index=self._place, text=part.text),
            PartDone(item_id=self._id, output_index=self._place, part=part),
            ItemDone(output_index=self._place, item=self.item(status)),
        ]

    def _part(self) -> ReasoningText:
        return ReasoningText(text="".join(self._text))


class OpenCall:
    """A call of a function, whose arguments come bit by bit."""

    def __init__(self, place: int, call_id: str, name: str) -> None:
        self._id = _new_id("fc")
        self._place = place
        self._call_id = call_id
        self._name = name
        self._arguments: list[str] = []

    def begin(self) -> list[Event]:
        return [ItemAdded(output_index=self._place, item=self.item("in_progress"))]

    def add(self, arguments: str) -> Event:
        self._arguments.append(arguments)
        return ArgumentsDelta(item_id=self._id, output_index=self._place, delta=arguments)

    def item(self, status: Progress) -> Item:
        arguments = "".join(self._arguments)
        return FunctionCall(id=self._id, status=status, call_id=self._call_id, name=self._name, arguments=arguments)

    def end(self, status: Progress) -> list[Event]:
        arguments = "".join(self._arguments)
        return [
            ArgumentsDone(item_id=self._id, output_index=self._place, arguments=arguments),
            ItemDone(output_index=self._place, item=self.item(status)),
        ]


OpenItem = OpenMessage | OpenReasoning | OpenCall
