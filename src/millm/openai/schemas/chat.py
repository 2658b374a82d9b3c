"""The body of `/v1/chat/completions`."""

from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from millm.openai.schemas.common import GenerationFields, RequestModel
from millm.openai.schemas.tools import CalledFunction, Name, OfferedFunction, Tool, ToolCall
from millm.openai.schemas.within import Within

Role = Literal["developer", "system", "user", "assistant", "tool", "function"]


def as_parts(content: Any) -> Any:
    """A string is one part of text."""
    if isinstance(content, str):
        return [{"type": "text", "text": content}]
    if isinstance(content, list):
        return content
    raise PydanticCustomError("content_type", "Input should be a string or a list of parts")


class ChatMessage(RequestModel):
    role: Role
    content: Annotated[list[dict[str, Any]] | None, BeforeValidator(as_parts, str | list[dict[str, Any]])] = None
    name: str | None = None
    tool_calls: list[ToolCall] = Field(default_factory=list)
    tool_call_id: str | None = None
    function_call: CalledFunction | None = None


class JsonSchema(RequestModel):
    name: Name
    schema_: Annotated[Any, Field(alias="schema")]
    strict: bool = False
    description: str = ""


class ResponseFormat(RequestModel):
    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None

    @model_validator(mode="after")
    def _is_complete(self) -> Self:
        if self.type == "json_schema" and self.json_schema is None:
            raise PydanticCustomError("schema_missing", "`json_schema` is required with type 'json_schema'")
        return self


class ChatRequest(GenerationFields):
    messages: Annotated[list[ChatMessage], Field(min_length=1, max_length=2048)]
    max_completion_tokens: Annotated[int | None, Field(ge=1)] = None
    max_tokens: Annotated[int | None, Field(ge=1, description="Older name of `max_completion_tokens`.")] = None
    logprobs: bool = False
    top_logprobs: Annotated[int | None, Within(0, 20)] = None
    response_format: Annotated[
        ResponseFormat,
        Field(description="`text`, `json_object` or `json_schema`: [structured output](structured-output.md)."),
    ] = ResponseFormat(type="text")
    modalities: list[str] = Field(default_factory=list)
    tools: Annotated[list[Tool], Field(description="Functions that may be called.")] = Field(default_factory=list)
    tool_choice: Annotated[
        Any, Field(description="`auto`, `none`, `required`, a function, or `allowed_tools`. Default: `auto`.")
    ] = None
    parallel_tool_calls: Annotated[
        bool | None, Field(description="Several calls in one answer. Default: with `auto` yes, with `required` no.")
    ] = None
    functions: Annotated[list[OfferedFunction], Field(description="Older form of `tools`.")] = Field(
        default_factory=list
    )
    function_call: Annotated[dict[str, Any] | str | None, Field(description="Older form of `tool_choice`.")] = None
    reasoning_effort: Annotated[str | None, Field(max_length=64, description="For templates that read it.")] = None
    chat_template_kwargs: Annotated[
        dict[str, Any], Field(description="Switches of the model's template, such as `enable_thinking`.")
    ] = Field(default_factory=dict)
    add_generation_prompt: Annotated[bool | None, Field(description="Default: true.")] = None
    continue_final_message: Annotated[
        bool, Field(description="The answer goes on with the last message, which must be the assistant's.")
    ] = False

    @property
    def generation_prompt(self) -> bool:
        """Whether the prompt ends with the start of a new answer."""
        return not self.continue_final_message if self.add_generation_prompt is None else self.add_generation_prompt

    @property
    def switches(self) -> dict[str, Any]:
        """What the template is asked to take into account, if it reads such a thing."""
        effort = {} if self.reasoning_effort is None else {"reasoning_effort": self.reasoning_effort}
        return effort | self.chat_template_kwargs

    @property
    def token_limit(self) -> int | None:
        """Tokens of the answer, if the client set a limit."""
        return self.max_completion_tokens or self.max_tokens

    @property
    def num_logprobs(self) -> int | None:
        """How many likely tokens to report with each token; None: no logprobs at all."""
        return (self.top_logprobs or 0) if self.logprobs else None
