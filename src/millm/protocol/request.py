"""Bodies of `/v1/chat/completions`, `/v1/completions` and `/v1/embeddings`: strict types, null means absent."""

from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    PlainValidator,
    StringConstraints,
    model_validator,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from millm.engine.messages import SamplingParams
from millm.profiles.schema import ActivationsField, SteeringRequest

_COLLECTION_TYPES = ("list", "tuple", "set", "frozenset")


def set_fail_fast(schema: Any) -> Any:
    """Change a pydantic core schema in place: every collection in it stops at its first invalid item.

    Without this a body of 4 MiB, `{"messages": [1, 1, …]}`, took 2.6 GB and 47 s to reject: pydantic's errors take 600
    times the memory of an item. https://docs.pydantic.dev/latest/concepts/performance/#fail-fast
    """
    if isinstance(schema, dict):
        if schema.get("type") in _COLLECTION_TYPES:
            schema["fail_fast"] = True
        for part in schema.values():
            set_fail_fast(part)
    elif isinstance(schema, list):
        for part in schema:
            set_fail_fast(part)
    return schema


@dataclass(frozen=True)
class Within:
    """`Annotated[float, Within(0, 2)]`: an inclusive range. The error names both ends; pydantic's names only one."""

    low: int
    high: int

    def check(self, value: float) -> float:
        if not self.low <= value <= self.high:
            raise PydanticCustomError(
                "out_of_range", "Input should be from {low} to {high}", {"low": self.low, "high": self.high}
            )
        return value

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self.check, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {**handler(schema), "minimum": self.low, "maximum": self.high}


INT64 = 2**63
StopString = Annotated[str, StringConstraints(max_length=1000)]


def as_list(stop: Any) -> Any:
    """`stop` is a string or a list of strings; empty strings are dropped."""
    strings = [stop] if isinstance(stop, str) else stop
    return [string for string in strings if string != ""] if isinstance(strings, list) else strings


class RequestModel(BaseModel):
    """Part of a request. Unknown fields are accepted, in `model_extra`."""

    model_config = ConfigDict(strict=True, extra="allow", frozen=True)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: type[BaseModel], handler: GetCoreSchemaHandler) -> CoreSchema:
        schema: CoreSchema = set_fail_fast(handler(source))
        return schema

    @model_validator(mode="before")
    @classmethod
    def _drop_nulls(cls, sent: Any) -> Any:
        """A null is an absent field, except `steering: null`, which selects the base model."""
        if not isinstance(sent, dict):
            return sent
        return {name: value for name, value in sent.items() if value is not None or name == "steering"}


class StreamOptions(RequestModel):
    include_usage: bool = False


class GenerationFields(RequestModel):
    """Fields that chats, completions and responses share."""

    model: Annotated[str, Field(min_length=1, description="`<model>` or `<model>:<profile>`.")]
    temperature: Annotated[float, Within(0, 2)] = 1.0
    top_p: Annotated[float, Within(0, 1)] = 1.0
    top_k: Annotated[int, Within(-1, 1_000_000), Field(description="0 or -1: all tokens.")] = 0
    min_p: Annotated[float, Within(0, 1)] = 0.0
    presence_penalty: Annotated[float, Within(-2, 2)] = 0.0
    frequency_penalty: Annotated[float, Within(-2, 2)] = 0.0
    repetition_penalty: Annotated[
        float, Field(ge=0.01, le=10, description="Divides the logits of tokens that were seen, in prompt and answer.")
    ] = 1.0
    logit_bias: dict[
        Annotated[str, StringConstraints(pattern=r"^[0-9]{1,9}$")], Annotated[float, Within(-100, 100)]
    ] = Field(default_factory=dict)
    seed: Annotated[int | None, Within(-INT64, INT64 - 1)] = None
    n: Annotated[int, Within(1, 128)] = 1
    stop: Annotated[list[StopString], BeforeValidator(as_list), Field(max_length=16)] = Field(default_factory=list)
    stop_token_ids: Annotated[
        list[Annotated[int, Field(ge=0)]], Field(max_length=128, description="Tokens that end the answer as well.")
    ] = Field(default_factory=list)
    ignore_eos: Annotated[bool, Field(description="The model's own end tokens do not end the answer.")] = False
    min_tokens: Annotated[int, Field(ge=0, le=1_000_000, description="No token ends the answer before so many.")] = 0
    stream: bool = False
    stream_options: StreamOptions = StreamOptions()

    profile: Annotated[str | None, Field(description="Name of the steering profile to apply.")] = None
    steering: Annotated[SteeringRequest | None, Field(description="A steering; null or {} is the base model.")] = None
    activations: Annotated[
        ActivationsField | None, Field(description="What to report of which tokens; a list for several SAEs.")
    ] = None

    @property
    def samples_per_prompt(self) -> int:
        return self.n

    @property
    def num_prompt_logprobs(self) -> int | None:
        """Alternatives to report per prompt token; None: no logprobs."""
        return None

    @property
    def steering_given(self) -> bool:
        return "steering" in self.model_fields_set

    def sampling(self, choice: int, logprobs: int | None) -> SamplingParams:
        """Sampling parameters of choice number `choice`; a given seed differs for each choice."""
        return SamplingParams(
            temperature=self.temperature,
            top_p=self.top_p,
            top_k=max(self.top_k, 0),
            min_p=self.min_p,
            presence_penalty=self.presence_penalty,
            frequency_penalty=self.frequency_penalty,
            repetition_penalty=self.repetition_penalty,
            min_tokens=self.min_tokens,
            logit_bias=tuple((int(token), bias) for token, bias in self.logit_bias.items()),
            seed=None if self.seed is None else self.seed + choice,
            logprobs=logprobs,
        )


Name = Annotated[str, StringConstraints(pattern=r"^[a-zA-Z0-9_-]{1,64}$")]
"""OpenAI's rule for names of functions and schemas."""


class OfferedFunction(RequestModel):
    name: Name
    description: str = ""
    parameters: dict[str, Any] = Field(default_factory=dict)
    strict: bool = False


class Tool(RequestModel):
    type: Literal["function"]
    function: OfferedFunction


class CalledFunction(RequestModel):
    name: str
    arguments: Any = "{}"


class ToolCall(RequestModel):
    id: str | None = None
    function: CalledFunction


Role = Literal["developer", "system", "user", "assistant", "tool", "function"]


def as_parts(content: Any) -> Any:
    """A string becomes one text part."""
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
        bool, Field(description="Continue the last message, which must be the assistant's.")
    ] = False

    @property
    def generation_prompt(self) -> bool:
        """Whether the prompt ends with the start of an assistant message."""
        return not self.continue_final_message if self.add_generation_prompt is None else self.add_generation_prompt

    @property
    def switches(self) -> dict[str, Any]:
        """Variables for the chat template."""
        effort = {} if self.reasoning_effort is None else {"reasoning_effort": self.reasoning_effort}
        return effort | self.chat_template_kwargs

    @property
    def token_limit(self) -> int | None:
        return self.max_completion_tokens or self.max_tokens

    @property
    def num_logprobs(self) -> int | None:
        """Alternatives to report per token; None: no logprobs."""
        return (self.top_logprobs or 0) if self.logprobs else None


LEGACY_MAX_TOKENS = 16
"""OpenAI's documented default for `/v1/completions`."""
Prompt = str | list[int]
PromptField = str | list[str] | list[int] | list[list[int]]


def as_prompts(sent: Any) -> list[Prompt]:
    """Accept a string, token ids, or a list of either."""
    prompts = [sent] if _is_prompt(sent) else sent
    if isinstance(prompts, list) and prompts and all(_is_prompt(prompt) for prompt in prompts):
        return prompts
    raise PydanticCustomError(
        "prompt_type", "Input should be a string, a list of token ids, or a list of one of them; not empty"
    )


def _is_prompt(sent: Any) -> bool:
    return isinstance(sent, str) or _is_ids(sent)


def _is_ids(sent: Any) -> bool:
    return isinstance(sent, list) and len(sent) > 0 and all(type(token) is int and token >= 0 for token in sent)


class CompletionRequest(GenerationFields):
    prompt: Annotated[list[Prompt], PlainValidator(as_prompts, json_schema_input_type=PromptField)] = Field(
        default_factory=lambda: list[Prompt]([""])
    )
    max_tokens: Annotated[int, Field(ge=0)] = LEGACY_MAX_TOKENS
    logprobs: Annotated[int | None, Within(0, 5)] = None
    echo: Annotated[bool, Field(description="The answer starts with the prompt, also in its `logprobs`.")] = False
    best_of: Annotated[
        int | None, Within(1, 20), Field(description="Samples to generate; the `n` likeliest per token are returned.")
    ] = None

    @property
    def token_limit(self) -> int:
        return self.max_tokens

    @property
    def samples_per_prompt(self) -> int:
        return self.best_of or self.n

    @property
    def num_logprobs(self) -> int | None:
        """`best_of` needs logprobs to rank its samples."""
        return 0 if self.logprobs is None and self.samples_per_prompt > self.n else self.logprobs

    @property
    def num_prompt_logprobs(self) -> int | None:
        return self.logprobs if self.echo else None


MAX_INPUTS = 2048
"""OpenAI's limit."""
Input = str | list[int]
InputField = str | list[str] | list[int] | list[list[int]]


def as_inputs(sent: Any) -> list[Input]:
    """Accept a text, token ids, or a list of one of them."""
    inputs = [sent] if _is_ids(sent) or isinstance(sent, str) else sent
    if isinstance(inputs, list) and 0 < len(inputs) <= MAX_INPUTS and _are_inputs(inputs):
        return inputs
    raise PydanticCustomError(
        "input_type",
        "Input should be a string, a list of token ids, or a list of 1 to {most} of one of them; none of them empty",
        {"most": MAX_INPUTS},
    )


def _are_inputs(inputs: list[Any]) -> bool:
    return all(isinstance(text, str) and text for text in inputs) or all(map(_is_ids, inputs))


class EmbeddingRequest(RequestModel):
    model: Annotated[str, Field(min_length=1, description="`<model>`; a profile changes nothing in a vector.")]
    input: Annotated[
        list[Input],
        PlainValidator(as_inputs, json_schema_input_type=InputField),
        Field(description="Texts or token ids; at most 2048 of them."),
    ]
    encoding_format: Annotated[Literal["float", "base64"], Field(description="`base64`: little-endian float32.")] = (
        "float"
    )
    dimensions: Annotated[int | None, Field(ge=1, description="Only the first so many numbers, at length 1 again.")] = (
        None
    )
    profile: Annotated[str | None, Field(description="Accepted, and changes nothing.")] = None
    activations: Annotated[
        ActivationsField | None, Field(description="Read at every token; `tokens` and `when` change nothing.")
    ] = None
