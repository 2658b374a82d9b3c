"""A response while it is written: the pieces of a chat's answer become items, and events that tell of them."""

import time
from collections.abc import Iterator

from msgspec.structs import replace

from millm.generation.output import ChoiceEnd, OutputDelta, ToolCallPart, build_extension, join_outputs
from millm.generation.request import GenerationRequest
from millm.openai.logprobs import chat_logprobs
from millm.openai.responses.answer import (
    IncompleteDetails,
    InputDetails,
    ItemStatus,
    OutputItem,
    ResponseError,
    ResponseObject,
    ResponseUsage,
)
from millm.openai.responses.events import (
    ErrorEvent,
    ResponseCompleted,
    ResponseCreated,
    ResponseFailed,
    ResponseIncomplete,
    ResponseInProgress,
    ResponseStreamEvent,
)
from millm.openai.responses.open_items import Logprobs, OpenCall, OpenItem, OpenMessage, OpenReasoning
from millm.protocol.errors import error_body


class ResponseWriter:
    """One response. What is whole is the last event's: a stream that nobody reads until its end."""

    def __init__(self, generation: GenerationRequest, response: ResponseObject, *, logprobs: bool) -> None:
        self._generation = generation
        self._response = response
        self._wants_logprobs = logprobs
        self._outputs: list[OutputDelta] = []
        self._finished_items: list[OutputItem] = []
        self._open_item: OpenItem | None = None

    def output_events(self, output: OutputDelta) -> Iterator[ResponseStreamEvent]:
        """What one more piece has to be told by."""
        if not self._outputs:
            yield from self._opening_events()
        self._outputs.append(output)
        yield from self._reasoning_events(output.reasoning)
        yield from self._text_events(output)
        for part in output.calls:
            yield from self._call_events(part)
        if output.end:
            yield from self._finish(output.end)

    def failure_events(self, failure: Exception) -> list[ResponseStreamEvent]:
        """What a stream ends with that fails: our own error, and the response as far as it came."""
        opening = [] if self._outputs else self._opening_events()
        error = error_body(failure)["error"]
        open_item = [self._open_item.item("incomplete")] if self._open_item else []
        response = replace(
            self._response,
            status="failed",
            error=ResponseError(message=error["message"]),
            output=(*self._finished_items, *open_item),
        )
        told = ErrorEvent(code=error["code"], message=error["message"], param=error["param"])
        return [*opening, told, ResponseFailed(response=response)]

    def _opening_events(self) -> list[ResponseStreamEvent]:
        return [ResponseCreated(response=self._response), ResponseInProgress(response=self._response)]

    def _reasoning_events(self, text: str) -> Iterator[ResponseStreamEvent]:
        if not text:
            return
        if not isinstance(self._open_item, OpenReasoning):
            yield from self._begin_item(OpenReasoning(self._next_index()))
        assert isinstance(self._open_item, OpenReasoning)
        yield self._open_item.add(text)

    def _text_events(self, output: OutputDelta) -> Iterator[ResponseStreamEvent]:
        logprobs = self._logprobs(output)
        belongs_to_words = isinstance(self._open_item, OpenMessage) and bool(logprobs) and not output.calls
        if not output.text and not belongs_to_words:
            return
        if not isinstance(self._open_item, OpenMessage):
            yield from self._begin_item(OpenMessage(self._next_index()))
        assert isinstance(self._open_item, OpenMessage)
        yield self._open_item.add(output.text, logprobs)

    def _call_events(self, part: ToolCallPart) -> Iterator[ResponseStreamEvent]:
        if part.id is not None and part.name is not None:
            yield from self._begin_item(OpenCall(self._next_index(), part.id, part.name))
        if part.arguments:
            assert isinstance(self._open_item, OpenCall)
            yield self._open_item.add(part.arguments)

    def _next_index(self) -> int:
        return len(self._finished_items) + (self._open_item is not None)

    def _begin_item(self, item: OpenItem) -> Iterator[ResponseStreamEvent]:
        yield from self._end_item("completed")
        self._open_item = item
        yield from item.begin()

    def _end_item(self, status: ItemStatus) -> Iterator[ResponseStreamEvent]:
        if self._open_item:
            yield from self._open_item.end(status)
            self._finished_items.append(self._open_item.item(status))
            self._open_item = None

    def _finish(self, end: ChoiceEnd) -> Iterator[ResponseStreamEvent]:
        """An answer without a word is an empty message."""
        if not self._finished_items and not self._open_item:
            yield from self._begin_item(OpenMessage(0))
        is_cut = end.reason == "length"
        yield from self._end_item("incomplete" if is_cut else "completed")
        response = replace(
            self._response,
            status="incomplete" if is_cut else "completed",
            completed_at=None if is_cut else int(time.time()),
            incomplete_details=IncompleteDetails() if is_cut else None,
            output=tuple(self._finished_items),
            usage=self._usage(end),
            millm=build_extension(
                self._generation.selection,
                [join_outputs(self._outputs)],
                watching=bool(self._generation.watching.request_watches),
                sample_every=self._generation.sample_every,
                tools_omitted=self._generation.tools_omitted,
            ),
        )
        yield ResponseIncomplete(response=response) if is_cut else ResponseCompleted(response=response)

    def _logprobs(self, output: OutputDelta) -> Logprobs:
        return (
            chat_logprobs(self._generation.selection.model.tokenizer, output.tokens).content
            if self._wants_logprobs
            else ()
        )

    def _usage(self, end: ChoiceEnd) -> ResponseUsage:
        prompt = self._generation.prompt_tokens
        return ResponseUsage(
            input_tokens=prompt,
            input_tokens_details=InputDetails(cached_tokens=end.cached_tokens),
            output_tokens=end.tokens,
            total_tokens=prompt + end.tokens,
        )
