"""Responses in OpenAI's format. Nulls are written; UNSET fields are left out."""

from typing import Any, Literal

import msgspec
from msgspec import UNSET, UnsetType
from pydantic import BaseModel

FinishReason = Literal["stop", "length", "tool_calls"]
ObjectName = Literal["chat.completion", "chat.completion.chunk", "text_completion"]


# ------------------------------------------------------------------------------------------------- miLLM's own part


class Activation(msgspec.Struct, frozen=True, kw_only=True):
    """Activations of one SAE at one token."""

    choice: int
    sae: str
    position: int
    token: str
    values: tuple[float, ...]
    top: tuple[tuple[int, float], ...] | UnsetType
    """Absent where `top_k` was not sampled."""
    after: tuple[float, ...] | UnsetType = UNSET
    """`values` after steering, where `when` is `both`."""
    top_after: tuple[tuple[int, float], ...] | UnsetType = UNSET


class Extension(msgspec.Struct, frozen=True, kw_only=True):
    """`millm` in a response: the receipt of the applied steering, and the requested activations."""

    profile: str | UnsetType | None = UNSET
    steering: str | UnsetType | None = UNSET
    tokens_steered: int | UnsetType = UNSET
    delta_norm_ratio: float | UnsetType = UNSET
    degraded: str | UnsetType = UNSET
    """Why the steering was not applied, or stopped early."""
    activations: tuple[Activation, ...] | UnsetType = UNSET
    sample_every: int | UnsetType = UNSET
    """With `top_k`: positions that are a multiple of this have a `top`."""
    tools_omitted: bool | UnsetType = UNSET
    """The prompt does not include the tools: the template does not support them, or they are too long."""


# ------------------------------------------------------------------------------------------------------------ usage


class PromptDetails(msgspec.Struct, frozen=True, kw_only=True):
    cached_tokens: int = 0


class CompletionDetails(msgspec.Struct, frozen=True, kw_only=True):
    reasoning_tokens: int = 0


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptDetails = PromptDetails()
    completion_tokens_details: CompletionDetails = CompletionDetails()


# --------------------------------------------------------------------------------------------------------- logprobs


class TopLogprob(msgspec.Struct, frozen=True, kw_only=True):
    token: str
    logprob: float
    bytes: tuple[int, ...]


class TokenLogprob(TopLogprob, frozen=True, kw_only=True):
    """The generated token with the likeliest alternatives."""

    top_logprobs: tuple[TopLogprob, ...]


class ChatLogprobs(msgspec.Struct, frozen=True, kw_only=True):
    content: tuple[TokenLogprob, ...]
    refusal: None = None


class CompletionLogprobs(msgspec.Struct, frozen=True, kw_only=True):
    tokens: tuple[str, ...]
    token_logprobs: tuple[float | None, ...]
    """None for a prompt's first token."""
    top_logprobs: tuple[dict[str, float] | None, ...]
    text_offset: tuple[int, ...]


# ------------------------------------------------------------------------------------------------------------- chat


class FunctionCall(msgspec.Struct, frozen=True, kw_only=True):
    name: str | UnsetType = UNSET
    arguments: str
    """JSON; in a stream a part of it."""


class AssistantToolCall(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    type: Literal["function"] = "function"
    function: FunctionCall


class ToolCallDelta(msgspec.Struct, frozen=True, kw_only=True):
    """The first delta of a call has id and name, later ones only arguments."""

    index: int
    id: str | UnsetType = UNSET
    type: Literal["function"] | UnsetType = UNSET
    function: FunctionCall


class AssistantMessage(msgspec.Struct, frozen=True, kw_only=True):
    role: Literal["assistant"] = "assistant"
    content: str | None
    refusal: None = None
    annotations: tuple[Any, ...] = ()
    reasoning_content: str | UnsetType = UNSET
    tool_calls: tuple[AssistantToolCall, ...] | UnsetType = UNSET


class ChatChoice(msgspec.Struct, frozen=True, kw_only=True):
    index: int
    message: AssistantMessage
    logprobs: ChatLogprobs | None
    finish_reason: FinishReason


class DeltaMessage(msgspec.Struct, frozen=True, kw_only=True):
    role: Literal["assistant"] | UnsetType = UNSET
    content: str | UnsetType | None = UNSET
    reasoning_content: str | UnsetType = UNSET
    tool_calls: tuple[ToolCallDelta, ...] | UnsetType = UNSET


class ChatChunkChoice(msgspec.Struct, frozen=True, kw_only=True):
    index: int
    delta: DeltaMessage
    logprobs: ChatLogprobs | None = None
    finish_reason: FinishReason | None = None


# ------------------------------------------------------------------------------------------------------ completions


class CompletionChoice(msgspec.Struct, frozen=True, kw_only=True):
    index: int
    text: str
    logprobs: CompletionLogprobs | None = None
    finish_reason: FinishReason | None = None


Choice = ChatChoice | ChatChunkChoice | CompletionChoice


# ----------------------------------------------------------------------------------------------------- the envelope


class CompletionResponse(msgspec.Struct, frozen=True, kw_only=True):
    """A full response, or one chunk of a stream."""

    id: str
    object: ObjectName
    created: int
    model: str
    system_fingerprint: str
    choices: tuple[Choice, ...]
    usage: Usage | UnsetType | None = UNSET
    millm: Extension | UnsetType = UNSET


# ------------------------------------------------------------------------------------------------------- embeddings


class InputActivation(msgspec.Struct, frozen=True, kw_only=True):
    """Activations of one SAE at one token."""

    input: int
    """Number of the input."""
    sae: str
    position: int
    token: str
    values: tuple[float, ...]
    top: tuple[tuple[int, float], ...] | UnsetType
    """Absent where `top_k` was not sampled."""


class EmbeddingExtension(msgspec.Struct, frozen=True, kw_only=True):
    """`millm` in the response. Embeddings are never steered."""

    profile: None = None
    steering: None = None
    tokens_steered: int = 0
    activations: tuple[InputActivation, ...] | UnsetType = UNSET
    sample_every: int | UnsetType = UNSET
    """With `top_k`: positions that are a multiple of this have a `top`."""


class EmbeddingUsage(msgspec.Struct, frozen=True, kw_only=True):
    prompt_tokens: int
    total_tokens: int


class Embedding(msgspec.Struct, frozen=True, kw_only=True):
    object: Literal["embedding"] = "embedding"
    index: int
    embedding: str | msgspec.Raw
    """Base64, or a list of numbers."""


class EmbeddingAnswer(msgspec.Struct, frozen=True, kw_only=True):
    object: Literal["list"] = "list"
    data: tuple[Embedding, ...]
    model: str
    usage: EmbeddingUsage
    millm: EmbeddingExtension = EmbeddingExtension()


# ---------------------------------------------------------------------------------------------------------- OpenAPI


class Error(BaseModel):
    """Why a request was rejected or failed."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorAnswer(BaseModel):
    """Body of every response with a status of 400 or more."""

    error: Error


ERROR_RESPONSES: dict[int | str, dict[str, Any]] = {
    "4XX": {"model": ErrorAnswer, "description": "Rejected; nothing has changed."},
    "5XX": {"model": ErrorAnswer, "description": "Failed, or not possible now."},
}
STREAM_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {"content": {"application/json": {}, "text/event-stream": {"schema": {"type": "string"}}}}
}
"""JSON, or with `stream: true` events."""
