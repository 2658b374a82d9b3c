"""An item of a response while it is written: what begins it, adds to it and ends it, as events."""

import uuid

from millm.openai.responses.answer import (
    FunctionCallItem,
    ItemStatus,
    MessageItem,
    OutputItem,
    OutputText,
    ReasoningItem,
    ReasoningText,
)
from millm.openai.responses.events import (
    ArgumentsDelta,
    ArgumentsDone,
    ItemAdded,
    ItemDone,
    PartAdded,
    PartDone,
    ReasoningDelta,
    ReasoningDone,
    ResponseStreamEvent,
    TextDelta,
    TextDone,
)
from millm.protocol.response import TokenLogprob

Logprobs = tuple[TokenLogprob, ...]


def _new_id(kind: str) -> str:
    return f"{kind}_{uuid.uuid4().hex}"


class OpenMessage:
    """Words for the user: one part of text."""

    def __init__(self, output_index: int) -> None:
        self._id = _new_id("msg")
        self._output_index = output_index
        self._text: list[str] = []
        self._logprobs: list[TokenLogprob] = []

    def begin(self) -> list[ResponseStreamEvent]:
        return [
            ItemAdded(output_index=self._output_index, item=MessageItem(id=self._id, status="in_progress")),
            PartAdded(item_id=self._id, output_index=self._output_index, part=OutputText()),
        ]

    def add(self, text: str, logprobs: Logprobs) -> ResponseStreamEvent:
        self._text.append(text)
        self._logprobs += logprobs
        return TextDelta(item_id=self._id, output_index=self._output_index, delta=text, logprobs=logprobs)

    def item(self, status: ItemStatus) -> OutputItem:
        return MessageItem(id=self._id, status=status, content=(self._part(),))

    def end(self, status: ItemStatus) -> list[ResponseStreamEvent]:
        part = self._part()
        return [
            TextDone(item_id=self._id, output_index=self._output_index, text=part.text, logprobs=part.logprobs),
            PartDone(item_id=self._id, output_index=self._output_index, part=part),
            ItemDone(output_index=self._output_index, item=self.item(status)),
        ]

    def _part(self) -> OutputText:
        return OutputText(text="".join(self._text), logprobs=tuple(self._logprobs))


class OpenReasoning:
    """What the model says to itself: one part of text."""

    def __init__(self, output_index: int) -> None:
        self._id = _new_id("rs")
        self._output_index = output_index
        self._text: list[str] = []

    def begin(self) -> list[ResponseStreamEvent]:
        return [
            ItemAdded(output_index=self._output_index, item=ReasoningItem(id=self._id, status="in_progress")),
            PartAdded(item_id=self._id, output_index=self._output_index, part=ReasoningText()),
        ]

    def add(self, text: str) -> ResponseStreamEvent:
        self._text.append(text)
        return ReasoningDelta(item_id=self._id, output_index=self._output_index, delta=text)

    def item(self, status: ItemStatus) -> OutputItem:
        return ReasoningItem(id=self._id, status=status, content=(self._part(),))

    def end(self, status: ItemStatus) -> list[ResponseStreamEvent]:
        part = self._part()
        return [
            ReasoningDone(item_id=self._id, output_index=self._output_index, text=part.text),
            PartDone(item_id=self._id, output_index=self._output_index, part=part),
            ItemDone(output_index=self._output_index, item=self.item(status)),
        ]

    def _part(self) -> ReasoningText:
        return ReasoningText(text="".join(self._text))


class OpenCall:
    """A call of a function, whose arguments come bit by bit."""

    def __init__(self, output_index: int, call_id: str, name: str) -> None:
        self._id = _new_id("fc")
        self._output_index = output_index
        self._call_id = call_id
        self._name = name
        self._arguments: list[str] = []

    def begin(self) -> list[ResponseStreamEvent]:
        return [ItemAdded(output_index=self._output_index, item=self.item("in_progress"))]

    def add(self, arguments: str) -> ResponseStreamEvent:
        self._arguments.append(arguments)
        return ArgumentsDelta(item_id=self._id, output_index=self._output_index, delta=arguments)

    def item(self, status: ItemStatus) -> OutputItem:
        arguments = "".join(self._arguments)
        return FunctionCallItem(id=self._id, status=status, call_id=self._call_id, name=self._name, arguments=arguments)

    def end(self, status: ItemStatus) -> list[ResponseStreamEvent]:
        arguments = "".join(self._arguments)
        return [
            ArgumentsDone(item_id=self._id, output_index=self._output_index, arguments=arguments),
            ItemDone(output_index=self._output_index, item=self.item(status)),
        ]


OpenItem = OpenMessage | OpenReasoning | OpenCall
