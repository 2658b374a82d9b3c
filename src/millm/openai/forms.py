"""The two shapes a choice can be told in: a chat's message or a completion's text, whole or piece by piece."""

from collections.abc import Sequence
from typing import Protocol

from msgspec import UNSET

from millm.generation.output import OutputDelta, ToolCallPart
from millm.openai.logprobs import chat_logprobs, completion_logprobs
from millm.protocol.response import (
    AssistantMessage,
    AssistantToolCall,
    ChatChoice,
    ChatChunkChoice,
    ChatLogprobs,
    Choice,
    CompletionChoice,
    CompletionLogprobs,
    DeltaMessage,
    FinishReason,
    FunctionCall,
    ObjectName,
    ToolCallDelta,
)
from millm.text.tokenizer import Tokenizer


class ChoiceBuilder(Protocol):
    """How one endpoint tells a choice."""

    response_object: ObjectName
    chunk_object: ObjectName

    def opening_chunk(self, choice: int) -> Choice | None:
        """What a stream says of a choice before its first text."""

    def chunks(self, output: OutputDelta) -> Sequence[Choice]:
        """Some of a stream, as one chunk or several."""

    def closing_chunk(self, choice: int, reason: FinishReason) -> Choice:
        """What a stream says of a choice after its last text."""

    def full_choice(self, output: OutputDelta, reason: FinishReason) -> Choice:
        """A choice in one piece."""


class ChatChoiceBuilder:
    response_object: ObjectName = "chat.completion"
    chunk_object: ObjectName = "chat.completion.chunk"

    def __init__(self, tokenizer: Tokenizer, *, logprobs: bool, calls_only: bool = False) -> None:
        self._tokenizer = tokenizer
        self._wants_logprobs = logprobs
        self._calls_only = calls_only

    def opening_chunk(self, choice: int) -> ChatChunkChoice:
        return ChatChunkChoice(
            index=choice, delta=DeltaMessage(role="assistant", content=None if self._calls_only else "")
        )

    def chunks(self, output: OutputDelta) -> list[ChatChunkChoice]:
        """Reasoning, words and each bit of a call apart, as clients expect them; the logprobs of all with the first.

        None for tokens that say nothing, such as the last bracket of a forced call.
        """
        deltas = [DeltaMessage(reasoning_content=output.reasoning)] if output.reasoning else []
        deltas += [DeltaMessage(content=output.text)] if output.text else []
        deltas += [DeltaMessage(tool_calls=(_call_delta(part),)) for part in output.calls]
        if not deltas and (self._wants_logprobs or output.activations):
            deltas = [DeltaMessage() if self._calls_only else DeltaMessage(content="")]
        logprobs = self._logprobs(output)
        return [
            ChatChunkChoice(index=output.choice, delta=delta, logprobs=None if place else logprobs)
            for place, delta in enumerate(deltas)
        ]

    def closing_chunk(self, choice: int, reason: FinishReason) -> ChatChunkChoice:
        return ChatChunkChoice(index=choice, delta=DeltaMessage(), finish_reason=reason)

    def full_choice(self, output: OutputDelta, reason: FinishReason) -> ChatChoice:
        return ChatChoice(
            index=output.choice,
            message=AssistantMessage(
                content=None if output.calls and not output.text else output.text,
                reasoning_content=output.reasoning or UNSET,
                tool_calls=_joined_calls(output.calls) or UNSET,
            ),
            logprobs=self._logprobs(output),
            finish_reason=reason,
        )

    def _logprobs(self, output: OutputDelta) -> ChatLogprobs | None:
        return chat_logprobs(self._tokenizer, output.tokens) if self._wants_logprobs else None


def _call_delta(part: ToolCallPart) -> ToolCallDelta:
    if part.id is None or part.name is None:
        return ToolCallDelta(index=part.index, function=FunctionCall(arguments=part.arguments))
    function = FunctionCall(name=part.name, arguments=part.arguments)
    return ToolCallDelta(index=part.index, id=part.id, type="function", function=function)


def _joined_calls(parts: Sequence[ToolCallPart]) -> tuple[AssistantToolCall, ...]:
    return tuple(
        AssistantToolCall(
            id=first.id,
            function=FunctionCall(
                name=first.name, arguments="".join(part.arguments for part in parts if part.index == first.index)
            ),
        )
        for first in parts
        if first.id is not None and first.name is not None
    )


class CompletionChoiceBuilder:
    response_object: ObjectName = "text_completion"
    chunk_object: ObjectName = "text_completion"

    def __init__(self, tokenizer: Tokenizer, *, logprobs: bool) -> None:
        self._tokenizer = tokenizer
        self._wants_logprobs = logprobs

    def opening_chunk(self, choice: int) -> None:
        """Nothing: the first text comes first."""

    def chunks(self, output: OutputDelta) -> list[CompletionChoice]:
        return [CompletionChoice(index=output.choice, text=output.text, logprobs=self._logprobs(output))]

    def closing_chunk(self, choice: int, reason: FinishReason) -> CompletionChoice:
        return CompletionChoice(index=choice, text="", finish_reason=reason)

    def full_choice(self, output: OutputDelta, reason: FinishReason) -> CompletionChoice:
        return CompletionChoice(
            index=output.choice, text=output.text, logprobs=self._logprobs(output), finish_reason=reason
        )

    def _logprobs(self, output: OutputDelta) -> CompletionLogprobs | None:
        return completion_logprobs(self._tokenizer, output) if self._wants_logprobs else None
