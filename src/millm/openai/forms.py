"""The two shapes a choice can be told in: a chat's message or a completion's text, whole or piece by piece."""

from typing import Protocol

from millm.openai.logprobs import chat_logprobs, completion_logprobs
from millm.openai.pieces import Piece
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
    ObjectName,
)
from millm.text.tokenizer import Tokenizer


class Form(Protocol):
    """How one endpoint tells a choice."""

    whole_object: ObjectName
    chunk_object: ObjectName

    def opening(self, choice: int) -> Choice | None:
        """What a stream says of a choice before its first text."""

    def part(self, piece: Piece) -> Choice:
        """Some text of a stream."""

    def closing(self, choice: int, reason: FinishReason) -> Choice:
        """What a stream says of a choice after its last text."""

    def whole(self, piece: Piece, reason: FinishReason) -> Choice:
        """A choice in one piece."""


class ChatForm:
    whole_object: ObjectName = "chat.completion"
    chunk_object: ObjectName = "chat.completion.chunk"

    def __init__(self, tokenizer: Tokenizer, *, logprobs: bool) -> None:
        self._tokenizer = tokenizer
        self._wants_logprobs = logprobs

    def opening(self, choice: int) -> ChatDelta:
        return ChatDelta(index=choice, delta=Delta(role="assistant", content=""))

    def part(self, piece: Piece) -> ChatDelta:
        return ChatDelta(index=piece.choice, delta=Delta(content=piece.text), logprobs=self._logprobs(piece))

    def closing(self, choice: int, reason: FinishReason) -> ChatDelta:
        return ChatDelta(index=choice, delta=Delta(), finish_reason=reason)

    def whole(self, piece: Piece, reason: FinishReason) -> ChatChoice:
        return ChatChoice(
            index=piece.choice,
            message=ChatAnswer(content=piece.text),
            logprobs=self._logprobs(piece),
            finish_reason=reason,
        )

    def _logprobs(self, piece: Piece) -> ChatLogprobs | None:
        return chat_logprobs(self._tokenizer, piece.tokens) if self._wants_logprobs else None


class CompletionForm:
    whole_object: ObjectName = "text_completion"
    chunk_object: ObjectName = "text_completion"

    def __init__(self, tokenizer: Tokenizer, *, logprobs: bool) -> None:
        self._tokenizer = tokenizer
        self._wants_logprobs = logprobs

    def opening(self, choice: int) -> None:
        """Nothing: the first text comes first."""

    def part(self, piece: Piece) -> CompletionChoice:
        return CompletionChoice(index=piece.choice, text=piece.text, logprobs=self._logprobs(piece))

    def closing(self, choice: int, reason: FinishReason) -> CompletionChoice:
        return CompletionChoice(index=choice, text="", finish_reason=reason)

    def whole(self, piece: Piece, reason: FinishReason) -> CompletionChoice:
        return CompletionChoice(
            index=piece.choice, text=piece.text, logprobs=self._logprobs(piece), finish_reason=reason
        )

    def _logprobs(self, piece: Piece) -> CompletionLogprobs | None:
        return completion_logprobs(self._tokenizer, piece) if self._wants_logprobs else None
