"""The two shapes a choice can be told in: a chat's message or a completion's text, whole or piece by piece."""

from collections.abc import Sequence
from typing import Protocol

from msgspec import UNSET

from millm.openai.logprobs import chat_logprobs, completion_logprobs
from millm.openai.pieces import CallPart, Piece
from millm.openai.schemas.answers import (
    ChatAnswer,
    ChatChoice,
    ChatDelta,
    ChatLogprobs,
    Choice,
    CompletionChoice,
    CompletionLogprobs,
    Delta,
    FinishReason,
    FunctionCall,
    ObjectName,
    ToolCall,
    ToolCallDelta,
)
from millm.text.tokenizer import Tokenizer


class Form(Protocol):
    """How one endpoint tells a choice."""

    whole_object: ObjectName
    chunk_object: ObjectName

    def opening(self, choice: int) -> Choice | None:
        """What a stream says of a choice before its first text."""

    def parts(self, piece: Piece) -> Sequence[Choice]:
        """Some of a stream, as one chunk or several."""

    def closing(self, choice: int, reason: FinishReason) -> Choice:
        """What a stream says of a choice after its last text."""

    def whole(self, piece: Piece, reason: FinishReason) -> Choice:
        """A choice in one piece."""


class ChatForm:
    whole_object: ObjectName = "chat.completion"
    chunk_object: ObjectName = "chat.completion.chunk"

    def __init__(self, tokenizer: Tokenizer, *, logprobs: bool, calls_only: bool = False) -> None:
        self._tokenizer = tokenizer
        self._wants_logprobs = logprobs
        self._calls_only = calls_only

    def opening(self, choice: int) -> ChatDelta:
        return ChatDelta(index=choice, delta=Delta(role="assistant", content=None if self._calls_only else ""))

    def parts(self, piece: Piece) -> list[ChatDelta]:
        """Reasoning, words and each bit of a call apart, as clients expect them; the logprobs of all with the first.

        None for tokens that say nothing, such as the last bracket of a forced call.
        """
        deltas = [Delta(reasoning_content=piece.reasoning)] if piece.reasoning else []
        deltas += [Delta(content=piece.text)] if piece.text else []
        deltas += [Delta(tool_calls=(_call_delta(part),)) for part in piece.calls]
        if not deltas and (self._wants_logprobs or piece.activations):
            deltas = [Delta() if self._calls_only else Delta(content="")]
        logprobs = self._logprobs(piece)
        return [
            ChatDelta(index=piece.choice, delta=delta, logprobs=None if place else logprobs)
            for place, delta in enumerate(deltas)
        ]

    def closing(self, choice: int, reason: FinishReason) -> ChatDelta:
        return ChatDelta(index=choice, delta=Delta(), finish_reason=reason)

    def whole(self, piece: Piece, reason: FinishReason) -> ChatChoice:
        return ChatChoice(
            index=piece.choice,
            message=ChatAnswer(
                content=None if piece.calls and not piece.text else piece.text,
                reasoning_content=piece.reasoning or UNSET,
                tool_calls=_whole_calls(piece.calls) or UNSET,
            ),
            logprobs=self._logprobs(piece),
            finish_reason=reason,
        )

    def _logprobs(self, piece: Piece) -> ChatLogprobs | None:
        return chat_logprobs(self._tokenizer, piece.tokens) if self._wants_logprobs else None


def _call_delta(part: CallPart) -> ToolCallDelta:
    if part.id is None or part.name is None:
        return ToolCallDelta(index=part.index, function=FunctionCall(arguments=part.arguments))
    function = FunctionCall(name=part.name, arguments=part.arguments)
    return ToolCallDelta(index=part.index, id=part.id, type="function", function=function)


def _whole_calls(parts: Sequence[CallPart]) -> tuple[ToolCall, ...]:
    return tuple(
        ToolCall(
            id=first.id,
            function=FunctionCall(
                name=first.name, arguments="".join(part.arguments for part in parts if part.index == first.index)
            ),
        )
        for first in parts
        if first.id is not None and first.name is not None
    )


class CompletionForm:
    whole_object: ObjectName = "text_completion"
    chunk_object: ObjectName = "text_completion"

    def __init__(self, tokenizer: Tokenizer, *, logprobs: bool) -> None:
        self._tokenizer = tokenizer
        self._wants_logprobs = logprobs

    def opening(self, choice: int) -> None:
        """Nothing: the first text comes first."""

    def parts(self, piece: Piece) -> list[CompletionChoice]:
        return [CompletionChoice(index=piece.choice, text=piece.text, logprobs=self._logprobs(piece))]

    def closing(self, choice: int, reason: FinishReason) -> CompletionChoice:
        return CompletionChoice(index=choice, text="", finish_reason=reason)

    def whole(self, piece: Piece, reason: FinishReason) -> CompletionChoice:
        return CompletionChoice(
            index=piece.choice, text=piece.text, logprobs=self._logprobs(piece), finish_reason=reason
        )

    def _logprobs(self, piece: Piece) -> CompletionLogprobs | None:
        return completion_logprobs(self._tokenizer, piece) if self._wants_logprobs else None
