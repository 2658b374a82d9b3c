"""Writes a response: deltas of a chat become output items and the events that begin, extend and end them."""

import time
import uuid
from collections.abc import Iterator

from msgspec.structs import replace

from millm.api.openai.response import chat_logprobs
from millm.api.openai.responses import events
from millm.generation.output import ChoiceEnd, OutputDelta, ToolCallPart, join_outputs, response_extension
from millm.generation.request import GenerationRequest
from millm.protocol.errors import error_body
from millm.protocol.response import TokenLogprob

Logprobs = tuple[TokenLogprob, ...]


def _new_id(kind: str) -> str:
    return f"{kind}_{uuid.uuid4().hex}"


class OpenMessage:
    """A message to the user: one text part."""

    def __init__(self, output_index: int) -> None:
        self._id = _new_id("msg")
        self._output_index = output_index
        self._text: list[str] = []
        self._logprobs: list[TokenLogprob] = []

    def begin(self) -> list[events.ResponseStreamEvent]:
        return [
            events.ItemAdded(
                output_index=self._output_index, item=events.MessageItem(id=self._id, status="in_progress")
            ),
            events.PartAdded(item_id=self._id, output_index=self._output_index, part=events.OutputText()),
        ]

    def add(self, text: str, logprobs: Logprobs) -> events.ResponseStreamEvent:
        self._text.append(text)
        self._logprobs += logprobs
        return events.TextDelta(item_id=self._id, output_index=self._output_index, delta=text, logprobs=logprobs)

    def item(self, status: events.ItemStatus) -> events.OutputItem:
        return events.MessageItem(id=self._id, status=status, content=(self._part(),))

    def end(self, status: events.ItemStatus) -> list[events.ResponseStreamEvent]:
        part = self._part()
        return [
            events.TextDone(item_id=self._id, output_index=self._output_index, text=part.text, logprobs=part.logprobs),
            events.PartDone(item_id=self._id, output_index=self._output_index, part=part),
            events.ItemDone(output_index=self._output_index, item=self.item(status)),
        ]

    def _part(self) -> events.OutputText:
        return events.OutputText(text="".join(self._text), logprobs=tuple(self._logprobs))


class OpenReasoning:
    """Reasoning: one text part."""

    def __init__(self, output_index: int) -> None:
        self._id = _new_id("rs")
        self._output_index = output_index
        self._text: list[str] = []

    def begin(self) -> list[events.ResponseStreamEvent]:
        return [
            events.ItemAdded(
                output_index=self._output_index, item=events.ReasoningItem(id=self._id, status="in_progress")
            ),
            events.PartAdded(item_id=self._id, output_index=self._output_index, part=events.ReasoningText()),
        ]

    def add(self, text: str) -> events.ResponseStreamEvent:
        self._text.append(text)
        return events.ReasoningDelta(item_id=self._id, output_index=self._output_index, delta=text)

    def item(self, status: events.ItemStatus) -> events.OutputItem:
        return events.ReasoningItem(id=self._id, status=status, content=(self._part(),))

    def end(self, status: events.ItemStatus) -> list[events.ResponseStreamEvent]:
        part = self._part()
        return [
            events.ReasoningDone(item_id=self._id, output_index=self._output_index, text=part.text),
            events.PartDone(item_id=self._id, output_index=self._output_index, part=part),
            events.ItemDone(output_index=self._output_index, item=self.item(status)),
        ]

    def _part(self) -> events.ReasoningText:
        return events.ReasoningText(text="".join(self._text))


class OpenCall:
    """A function call, whose arguments arrive in parts."""

    def __init__(self, output_index: int, call_id: str, name: str) -> None:
        self._id = _new_id("fc")
        self._output_index = output_index
        self._call_id = call_id
        self._name = name
        self._arguments: list[str] = []

    def begin(self) -> list[events.ResponseStreamEvent]:
        return [events.ItemAdded(output_index=self._output_index, item=self.item("in_progress"))]

    def add(self, arguments: str) -> events.ResponseStreamEvent:
        self._arguments.append(arguments)
        return events.ArgumentsDelta(item_id=self._id, output_index=self._output_index, delta=arguments)

    def item(self, status: events.ItemStatus) -> events.OutputItem:
        arguments = "".join(self._arguments)
        return events.FunctionCallItem(
            id=self._id, status=status, call_id=self._call_id, name=self._name, arguments=arguments
        )

    def end(self, status: events.ItemStatus) -> list[events.ResponseStreamEvent]:
        arguments = "".join(self._arguments)
        return [
            events.ArgumentsDone(item_id=self._id, output_index=self._output_index, arguments=arguments),
            events.ItemDone(output_index=self._output_index, item=self.item(status)),
        ]


OpenItem = OpenMessage | OpenReasoning | OpenCall


class ResponseWriter:
    """Turns the deltas of one response into stream events; the last event holds the full response."""

    def __init__(self, generation: GenerationRequest, response: events.ResponseObject, *, logprobs: bool) -> None:
        self._generation = generation
        self._response = response
        self._wants_logprobs = logprobs
        self._outputs: list[OutputDelta] = []
        self._finished_items: list[events.OutputItem] = []
        self._open_item: OpenItem | None = None

    def output_events(self, output: OutputDelta) -> Iterator[events.ResponseStreamEvent]:
        if not self._outputs:
            yield from self._opening_events()
        self._outputs.append(output)
        yield from self._reasoning_events(output.reasoning)
        yield from self._text_events(output)
        for part in output.calls:
            yield from self._call_events(part)
        if output.end:
            yield from self._finish(output.end)

    def failure_events(self, failure: Exception) -> list[events.ResponseStreamEvent]:
        """The last events of a failed stream: an `error` event and the incomplete response."""
        opening = [] if self._outputs else self._opening_events()
        error = error_body(failure)["error"]
        open_item = [self._open_item.item("incomplete")] if self._open_item else []
        response = replace(
            self._response,
            status="failed",
            error=events.ResponseError(message=error["message"]),
            output=(*self._finished_items, *open_item),
        )
        event = events.ErrorEvent(code=error["code"], message=error["message"], param=error["param"])
        return [*opening, event, events.ResponseFailed(response=response)]

    def _opening_events(self) -> list[events.ResponseStreamEvent]:
        return [events.ResponseCreated(response=self._response), events.ResponseInProgress(response=self._response)]

    def _reasoning_events(self, text: str) -> Iterator[events.ResponseStreamEvent]:
        if not text:
            return
        if not isinstance(self._open_item, OpenReasoning):
            yield from self._begin_item(OpenReasoning(self._next_index()))
        assert isinstance(self._open_item, OpenReasoning)
        yield self._open_item.add(text)

    def _text_events(self, output: OutputDelta) -> Iterator[events.ResponseStreamEvent]:
        logprobs = self._logprobs(output)
        extends_message = isinstance(self._open_item, OpenMessage) and bool(logprobs) and not output.calls
        if not output.text and not extends_message:
            return
        if not isinstance(self._open_item, OpenMessage):
            yield from self._begin_item(OpenMessage(self._next_index()))
        assert isinstance(self._open_item, OpenMessage)
        yield self._open_item.add(output.text, logprobs)

    def _call_events(self, part: ToolCallPart) -> Iterator[events.ResponseStreamEvent]:
        if part.id is not None and part.name is not None:
            yield from self._begin_item(OpenCall(self._next_index(), part.id, part.name))
        if part.arguments:
            assert isinstance(self._open_item, OpenCall)
            yield self._open_item.add(part.arguments)

    def _next_index(self) -> int:
        return len(self._finished_items) + (self._open_item is not None)

    def _begin_item(self, item: OpenItem) -> Iterator[events.ResponseStreamEvent]:
        yield from self._end_item("completed")
        self._open_item = item
        yield from item.begin()

    def _end_item(self, status: events.ItemStatus) -> Iterator[events.ResponseStreamEvent]:
        if self._open_item:
            yield from self._open_item.end(status)
            self._finished_items.append(self._open_item.item(status))
            self._open_item = None

    def _finish(self, end: ChoiceEnd) -> Iterator[events.ResponseStreamEvent]:
        """An empty answer becomes an empty message."""
        if not self._finished_items and not self._open_item:
            yield from self._begin_item(OpenMessage(0))
        is_truncated = end.reason == "length"
        yield from self._end_item("incomplete" if is_truncated else "completed")
        response = replace(
            self._response,
            status="incomplete" if is_truncated else "completed",
            completed_at=None if is_truncated else int(time.time()),
            incomplete_details=events.IncompleteDetails() if is_truncated else None,
            output=tuple(self._finished_items),
            usage=self._usage(end),
            millm=response_extension(
                self._generation,
                [join_outputs(self._outputs)],
                watching=bool(self._generation.watching.request_watches),
            ),
        )
        yield (
            events.ResponseIncomplete(response=response)
            if is_truncated
            else events.ResponseCompleted(response=response)
        )

    def _logprobs(self, output: OutputDelta) -> Logprobs:
        return (
            chat_logprobs(self._generation.selection.model.tokenizer, output.tokens).content
            if self._wants_logprobs
            else ()
        )

    def _usage(self, end: ChoiceEnd) -> events.ResponseUsage:
        prompt = self._generation.prompt_tokens
        return events.ResponseUsage(
            input_tokens=prompt,
            input_tokens_details=events.InputDetails(cached_tokens=end.cached_tokens),
            output_tokens=end.tokens,
            total_tokens=prompt + end.tokens,
        )
