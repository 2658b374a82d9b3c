"""The response object and its items as OpenAI publishes them (openai-python, `types/responses`); nulls included."""

from typing import Any, Literal

import msgspec
from msgspec import UNSET, UnsetType

from millm.openai.schemas.answers import ChosenLikelihood, Extension

Progress = Literal["in_progress", "completed", "incomplete"]


# ------------------------------------------------------------------------------------------------------------ items


class OutputText(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="output_text"):
    text: str = ""
    annotations: tuple[Any, ...] = ()
    logprobs: tuple[ChosenLikelihood, ...] = ()


class ReasoningText(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="reasoning_text"):
    text: str = ""


class Message(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="message"):
    id: str
    status: Progress
    role: Literal["assistant"] = "assistant"
    content: tuple[OutputText, ...] = ()


class Reasoning(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="reasoning"):
    id: str
    status: Progress
    summary: tuple[Any, ...] = ()
    content: tuple[ReasoningText, ...] = ()
    encrypted_content: None = None


class FunctionCall(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="function_call"):
    id: str
    status: Progress
    call_id: str
    name: str
    arguments: str = ""


Part = OutputText | ReasoningText
Item = Message | Reasoning | FunctionCall

# ------------------------------------------------------------------------------------------------------------ usage


class InputDetails(msgspec.Struct, frozen=True, kw_only=True):
    cached_tokens: int
    cache_write_tokens: int = 0


class OutputDetails(msgspec.Struct, frozen=True, kw_only=True):
    reasoning_tokens: int = 0


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    input_tokens: int
    input_tokens_details: InputDetails
    output_tokens: int
    output_tokens_details: OutputDetails = OutputDetails()
    total_tokens: int


# ------------------------------------------------------------------------------------------------------ the response


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """Of OpenAI's codes the one that fits; ours is in the stream's `error` event."""

    message: str
    code: Literal["server_error"] = "server_error"


class IncompleteDetails(msgspec.Struct, frozen=True, kw_only=True):
    reason: Literal["max_output_tokens"] = "max_output_tokens"


class FunctionTool(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="function"):
    name: str
    description: str | None
    parameters: dict[str, Any] | None
    strict: bool | None


class Response(msgspec.Struct, frozen=True, kw_only=True):
    """What was asked, and what came of it so far."""

    id: str
    object: Literal["response"] = "response"
    created_at: int
    completed_at: int | None = None
    status: Literal["in_progress", "completed", "incomplete", "failed"] = "in_progress"
    error: Failure | None = None
    incomplete_details: IncompleteDetails | None = None
    output: tuple[Item, ...] = ()
    usage: Usage | None = None
    model: str
    instructions: str | None
    max_output_tokens: int | None
    temperature: float
    top_p: float
    top_logprobs: int
    presence_penalty: float
    frequency_penalty: float
    text: dict[str, Any]
    tools: tuple[FunctionTool, ...]
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
