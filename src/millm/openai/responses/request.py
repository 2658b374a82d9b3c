"""The body of `/v1/responses`."""

from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from millm.protocol.request import GenerationFields, Name, RequestModel, Within

INCLUDE_LOGPROBS = "message.output_text.logprobs"
"""What `include` can ask for here."""


def as_items(sent: Any) -> Any:
    """A string is one message of the user."""
    if isinstance(sent, str):
        return [{"role": "user", "content": sent}]
    if isinstance(sent, list):
        return sent
    raise PydanticCustomError("input_type", "Input should be a string or a list of items")


def only_functions(kind: str) -> str:
    if kind != "function":
        raise PydanticCustomError(
            "tool_type", "Input should be 'function': only function tools work, this server runs none of its own"
        )
    return kind


class FunctionTool(RequestModel):
    type: Annotated[str, AfterValidator(only_functions)]
    name: Name
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class TextFormat(RequestModel):
    type: Literal["text", "json_object", "json_schema"] = "text"
    name: Name | None = None
    schema_: Annotated[Any, Field(alias="schema")] = None
    strict: bool | None = None
    description: str | None = None

    @model_validator(mode="after")
    def _is_complete(self) -> Self:
        if self.type == "json_schema" and (self.name is None or self.schema_ is None):
            raise PydanticCustomError("schema_missing", "`name` and `schema` are required with type 'json_schema'")
        return self


class TextConfig(RequestModel):
    format: TextFormat = TextFormat()
    verbosity: Literal["low", "medium", "high"] = "medium"


class Reasoning(RequestModel):
    effort: Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None = None


class ResponsesRequest(GenerationFields):
    input: Annotated[
        list[Any],
        BeforeValidator(as_items, str | list[dict[str, Any]]),
        Field(
            min_length=1,
            max_length=2000,
            description="A question, or the whole conversation as messages, function calls and their outputs.",
        ),
    ]
    n: Annotated[Literal[1], Field(description="A response has one answer.")] = 1
    instructions: Annotated[str | None, Field(description="A system message before all others.")] = None
    max_output_tokens: Annotated[int | None, Field(ge=1)] = None
    top_logprobs: Annotated[int | None, Within(0, 20)] = None
    include: Annotated[list[str], Field(description=f"`{INCLUDE_LOGPROBS}` is honoured.")] = Field(default_factory=list)
    text: Annotated[TextConfig, Field(description="`format`: `text`, `json_object` or `json_schema`.")] = TextConfig()
    tools: Annotated[list[FunctionTool], Field(description="Functions that may be called.")] = Field(
        default_factory=list
    )
    tool_choice: Annotated[Any, Field(description="`auto`, `none`, `required`, a function, or `allowed_tools`.")] = (
        "auto"
    )
    parallel_tool_calls: Annotated[
        bool | None, Field(description="Several calls in one answer. Default: with `auto` yes, with `required` no.")
    ] = None
    max_tool_calls: Annotated[int | None, Field(description="Echoed: it limits tools that run on a server.")] = None
    reasoning: Annotated[Reasoning, Field(description="`effort`: for templates that read it.")] = Reasoning()
    truncation: Annotated[
        Literal["auto", "disabled"], Field(description="Echoed: nothing is cut, too long a conversation is refused.")
    ] = "disabled"
    metadata: Annotated[dict[str, str], Field(description="Echoed.")] = Field(default_factory=dict)
    user: Annotated[str | None, Field(description="Echoed.")] = None
    safety_identifier: Annotated[str | None, Field(description="Echoed.")] = None
    prompt_cache_key: Annotated[str | None, Field(description="Echoed.")] = None

    @property
    def logprobs(self) -> bool:
        """Either name asks for them: what `top_logprobs` alone means is not said."""
        return INCLUDE_LOGPROBS in self.include or bool(self.top_logprobs)
