"""The response object, its items and its stream events as OpenAI publishes them (openai-python, `types/responses`)."""

from typing import Any, Literal

import msgspec
from msgspec import UNSET, UnsetType

from millm.protocol.response import Extension, TokenLogprob

ItemStatus = Literal["in_progress", "completed", "incomplete"]


# ------------------------------------------------------------------------------------------------------------ items


class OutputText(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="output_text"):
    text: str = ""
    annotations: tuple[Any, ...] = ()
    logprobs: tuple[TokenLogprob, ...] = ()


class ReasoningText(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="reasoning_text"):
    text: str = ""


class MessageItem(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="message"):
    id: str
    status: ItemStatus
    role: Literal["assistant"] = "assistant"
    content: tuple[OutputText, ...] = ()


class ReasoningItem(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="reasoning"):
    id: str
    status: ItemStatus
    summary: tuple[Any, ...] = ()
    content: tuple[ReasoningText, ...] = ()
    encrypted_content: None = None


class FunctionCallItem(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="function_call"):
    id: str
    status: ItemStatus
    call_id: str
    name: str
    arguments: str = ""


ContentPart = OutputText | ReasoningText
OutputItem = MessageItem | ReasoningItem | FunctionCallItem


# ------------------------------------------------------------------------------------------------------------ usage


class InputDetails(msgspec.Struct, frozen=True, kw_only=True):
    cached_tokens: int
    cache_write_tokens: int = 0


class OutputDetails(msgspec.Struct, frozen=True, kw_only=True):
    reasoning_tokens: int = 0


class ResponseUsage(msgspec.Struct, frozen=True, kw_only=True):
    input_tokens: int
    input_tokens_details: InputDetails
    output_tokens: int
    output_tokens_details: OutputDetails = OutputDetails()
    total_tokens: int


# ------------------------------------------------------------------------------------------------------ the response


class ResponseError(msgspec.Struct, frozen=True, kw_only=True):
    """OpenAI's error code; ours is in the stream's `error` event."""

    message: str
    code: Literal["server_error"] = "server_error"


class IncompleteDetails(msgspec.Struct, frozen=True, kw_only=True):
    reason: Literal["max_output_tokens"] = "max_output_tokens"


class ResponseFunctionTool(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="function"):
    name: str
    description: str | None
    parameters: dict[str, Any] | None
    strict: bool | None


class ResponseObject(msgspec.Struct, frozen=True, kw_only=True):
    """The request with its defaults, and the output so far."""

    id: str
    object: Literal["response"] = "response"
    created_at: int
    completed_at: int | None = None
    status: Literal["in_progress", "completed", "incomplete", "failed"] = "in_progress"
    error: ResponseError | None = None
    incomplete_details: IncompleteDetails | None = None
    output: tuple[OutputItem, ...] = ()
    usage: ResponseUsage | None = None
    model: str
    instructions: str | None
    max_output_tokens: int | None
    temperature: float
    top_p: float
    top_logprobs: int
    presence_penalty: float
    frequency_penalty: float
    text: dict[str, Any]
    tools: tuple[ResponseFunctionTool, ...]
    tool_choice: Any
    parallel_tool_calls: bool
    max_tool_calls: int | None
    reasoning: dict[str, Any]
    truncation: str
    metadata: dict[str, str]
    user: str | None
    safety_identifier: str | None
    prompt_cache_key: str | None
    service_tier: Literal["default"] = "default"
    store: bool = False
    background: bool = False
    previous_response_id: None = None
    millm: Extension | UnsetType = UNSET


class ResponseStreamEvent(msgspec.Struct, frozen=True, kw_only=True, tag_field="type"):
    sequence_number: int = 0
    """Assigned when the event is sent."""


# --------------------------------------------------------------------------------------------- events: the response


class ResponseEvent(ResponseStreamEvent, frozen=True, kw_only=True):
    response: ResponseObject


class ResponseCreated(ResponseEvent, frozen=True, kw_only=True, tag="response.created"):
    pass


class ResponseInProgress(ResponseEvent, frozen=True, kw_only=True, tag="response.in_progress"):
    pass


class ResponseCompleted(ResponseEvent, frozen=True, kw_only=True, tag="response.completed"):
    pass


class ResponseIncomplete(ResponseEvent, frozen=True, kw_only=True, tag="response.incomplete"):
    pass


class ResponseFailed(ResponseEvent, frozen=True, kw_only=True, tag="response.failed"):
    pass


class ErrorEvent(ResponseStreamEvent, frozen=True, kw_only=True, tag="error"):
    code: str
    message: str
    param: str | None


# ------------------------------------------------------------------------------------------------- events: one item


class ItemAdded(ResponseStreamEvent, frozen=True, kw_only=True, tag="response.output_item.added"):
    output_index: int
    item: OutputItem


class ItemDone(ResponseStreamEvent, frozen=True, kw_only=True, tag="response.output_item.done"):
    output_index: int
    item: OutputItem


class ItemEvent(ResponseStreamEvent, frozen=True, kw_only=True):
    item_id: str
    output_index: int


class ArgumentsDelta(ItemEvent, frozen=True, kw_only=True, tag="response.function_call_arguments.delta"):
    delta: str


class ArgumentsDone(ItemEvent, frozen=True, kw_only=True, tag="response.function_call_arguments.done"):
    arguments: str


# ---------------------------------------------------------------------------------------------- events: its one part


class PartEvent(ItemEvent, frozen=True, kw_only=True):
    content_index: int = 0


class PartAdded(PartEvent, frozen=True, kw_only=True, tag="response.content_part.added"):
    part: ContentPart


class PartDone(PartEvent, frozen=True, kw_only=True, tag="response.content_part.done"):
    part: ContentPart


class TextDelta(PartEvent, frozen=True, kw_only=True, tag="response.output_text.delta"):
    delta: str
    logprobs: tuple[TokenLogprob, ...] = ()


class TextDone(PartEvent, frozen=True, kw_only=True, tag="response.output_text.done"):
    text: str
    logprobs: tuple[TokenLogprob, ...] = ()


class ReasoningDelta(PartEvent, frozen=True, kw_only=True, tag="response.reasoning_text.delta"):
    delta: str


class ReasoningDone(PartEvent, frozen=True, kw_only=True, tag="response.reasoning_text.done"):
    text: str
