"""A response while it is written: the pieces of a chat's answer become items, and events that tell of them."""

import time
from collections.abc import Iterator

from msgspec.structs import replace

from millm.openai.envelope import envelope
from millm.openai.extension import receipt_of
from millm.openai.job import Job
from millm.openai.logprobs import chat_logprobs
from millm.openai.pieces import CallPart, End, Piece, join
from millm.openai.responses.answer import Failure, IncompleteDetails, InputDetails, Item, Progress, Response, Usage
from millm.openai.responses.events import Completed, Created, Error, Event, Failed, Incomplete, InProgress
from millm.openai.responses.open_items import Logprobs, OpenCall, OpenItem, OpenMessage, OpenReasoning


class Writer:
    """One response. What is whole is the last event's: a stream that nobody reads until its end."""

    def __init__(self, job: Job, begun: Response, *, logprobs: bool) -> None:
        self._job = job
        self._response = begun
        self._wants_logprobs = logprobs
        self._pieces: list[Piece] = []
        self._done: list[Item] = []
        self._open: OpenItem | None = None

    def told(self, piece: Piece) -> Iterator[Event]:
        """What one more piece has to be told by."""
        if not self._pieces:
            yield from self._opening()
        self._pieces.append(piece)
        yield from self._reasoning(piece.reasoning)
        yield from self._words(piece)
        for part in piece.calls:
            yield from self._call(part)
        if piece.end:
            yield from self._finish(piece.end)

    def failed(self, failure: Exception) -> list[Event]:
        """What a stream ends with that fails: our own error, and the response as far as it came."""
        opening = [] if self._pieces else self._opening()
        error = envelope(failure)["error"]
        open_item = [self._open.item("incomplete")] if self._open else []
        response = replace(
            self._response,
            status="failed",
            error=Failure(message=error["message"]),
            output=(*self._done, *open_item),
        )
        told = Error(code=error["code"], message=error["message"], param=error["param"])
        return [*opening, told, Failed(response=response)]

    def _opening(self) -> list[Event]:
        return [Created(response=self._response), InProgress(response=self._response)]

    def _reasoning(self, text: str) -> Iterator[Event]:
        if not text:
            return
        if not isinstance(self._open, OpenReasoning):
            yield from self._begin(OpenReasoning(self._next_place()))
        assert isinstance(self._open, OpenReasoning)
        yield self._open.add(text)

    def _words(self, piece: Piece) -> Iterator[Event]:
        logprobs = self._logprobs(piece)
        belongs_to_words = isinstance(self._open, OpenMessage) and bool(logprobs) and not piece.calls
        if not piece.text and not belongs_to_words:
            return
        if not isinstance(self._open, OpenMessage):
            yield from self._begin(OpenMessage(self._next_place()))
        assert isinstance(self._open, OpenMessage)
        yield self._open.add(piece.text, logprobs)

    def _call(self, part: CallPart) -> Iterator[Event]:
        if part.id is not None and part.name is not None:
            yield from self._begin(OpenCall(self._next_place(), part.id, part.name))
        if part.arguments:
            assert isinstance(self._open, OpenCall)
            yield self._open.add(part.arguments)

    def _next_place(self) -> int:
        return len(self._done) + (self._open is not None)

    def _begin(self, item: OpenItem) -> Iterator[Event]:
        yield from self._end("completed")
        self._open = item
        yield from item.begin()

    def _end(self, status: Progress) -> Iterator[Event]:
        if self._open:
            yield from self._open.end(status)
            self._done.append(self._open.item(status))
            self._open = None

    def _finish(self, end: End) -> Iterator[Event]:
        """An answer without a word is an empty message."""
        if not self._done and not self._open:
            yield from self._begin(OpenMessage(0))
        is_cut = end.reason == "length"
        yield from self._end("incomplete" if is_cut else "completed")
        response = replace(
            self._response,
            status="incomplete" if is_cut else "completed",
            completed_at=None if is_cut else int(time.time()),
            incomplete_details=IncompleteDetails() if is_cut else None,
            output=tuple(self._done),
            usage=self._usage(end),
            millm=receipt_of(
                self._job.selection,
                [join(self._pieces)],
                watching=bool(self._job.watching.asked),
                sample_every=self._job.sample_every,
                tools_omitted=self._job.tools_omitted,
            ),
        )
        yield Incomplete(response=response) if is_cut else Completed(response=response)

    def _logprobs(self, piece: Piece) -> Logprobs:
        return chat_logprobs(self._job.selection.model.tokenizer, piece.tokens).content if self._wants_logprobs else ()

    def _usage(self, end: End) -> Usage:
        prompt = self._job.prompt_tokens
        return Usage(
            input_tokens=prompt,
            input_tokens_details=InputDetails(cached_tokens=end.cached_tokens),
            output_tokens=end.tokens,
            total_tokens=prompt + end.tokens,
        )
