"""The body of `/v1/chat/completions`."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field
from pydantic_core import PydanticCustomError

from millm.openai.schemas.common import Fields, GenerationFields
from millm.openai.schemas.within import Within

Role = Literal["developer", "system", "user", "assistant", "tool", "function"]


def as_parts(content: Any) -> Any:
    """A string is one part of text."""
    if isinstance(content, str):
        return [{"type": "text", "text": content}]
    if isinstance(content, list):
        return content
    raise PydanticCustomError("content_type", "Input should be a string or a list of parts")


class CalledFunction(Fields):
    name: str
    arguments: Any = "{}"


class ToolCall(Fields):
    function: CalledFunction


class ChatMessage(Fields):
    role: Role
    content: Annotated[list[dict[str, Any]] | None, BeforeValidator(as_parts, str | list[dict[str, Any]])] = None
    name: str | None = None
    tool_calls: list[ToolCall] = Field(default_factory=list)


class ResponseFormat(Fields):
    type: Literal["text", "json_object", "json_schema"]


class ChatRequest(GenerationFields):
    messages: Annotated[list[ChatMessage], Field(min_length=1)]
    max_completion_tokens: Annotated[int | None, Field(ge=1)] = None
    max_tokens: Annotated[int | None, Field(ge=1, description="Older name of `max_completion_tokens`.")] = None
    logprobs: bool = False
    top_logprobs: Annotated[int | None, Within(0, 20)] = None
    response_format: ResponseFormat = ResponseFormat(type="text")
    modalities: list[str] = Field(default_factory=list)
    tools: Annotated[list[dict[str, Any]], Field(description="Accepted and not used.")] = Field(default_factory=list)
    tool_choice: Any = "auto"

    @property
    def limit(self) -> int | None:
        """Tokens of the answer, if the client set a limit."""
        return self.max_completion_tokens or self.max_tokens

    @property
    def alternatives(self) -> int | None:
        """How many likely tokens to report with each token; None: no logprobs at all."""
        return (self.top_logprobs or 0) if self.logprobs else None
