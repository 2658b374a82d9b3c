"""The body of `/v1/responses`, and its translation to a chat request."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from millm.errors import InvalidRequest, UnsupportedParameter
from millm.protocol.request import (
    CalledFunction,
    ChatMessage,
    ChatRequest,
    GenerationFields,
    JsonSchema,
    Name,
    OfferedFunction,
    RequestModel,
    ResponseFormat,
    Role,
    Tool,
    ToolCall,
    Within,
)

INCLUDE_LOGPROBS = "message.output_text.logprobs"
"""The supported value of `include`."""


def as_items(sent: Any) -> Any:
    """A string becomes one user message."""
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
            description="A question, or the full conversation as messages, function calls and their outputs.",
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
        Literal["auto", "disabled"],
        Field(description="Echoed: nothing is truncated; a conversation that is too long is rejected."),
    ] = "disabled"
    metadata: Annotated[dict[str, str], Field(description="Echoed.")] = Field(default_factory=dict)
    user: Annotated[str | None, Field(description="Echoed.")] = None
    safety_identifier: Annotated[str | None, Field(description="Echoed.")] = None
    prompt_cache_key: Annotated[str | None, Field(description="Echoed.")] = None

    @property
    def logprobs(self) -> bool:
        """Requested by `include` or by `top_logprobs`."""
        return INCLUDE_LOGPROBS in self.include or bool(self.top_logprobs)


STATELESS_HINT = "this server stores no responses; send the full conversation as `input`."
UNSUPPORTED_FIELDS: dict[str, tuple[tuple[Any, ...], str]] = {
    "previous_response_id": (("",), STATELESS_HINT),
    "conversation": ((), STATELESS_HINT),
    "background": ((False,), "this server answers within the request; leave it out, or use `stream`."),
    "prompt": ((), "this server stores no prompts; send `instructions` and `input`."),
}
"""Field → values without effect, and the way out."""


def check_unsupported(body: ResponsesRequest) -> None:
    """Raises UnsupportedParameter, naming the field."""
    extra = body.model_extra or {}
    for name, (neutral, way_out) in UNSUPPORTED_FIELDS.items():
        if name in extra and extra[name] not in neutral:
            raise UnsupportedParameter(f"`{name}` is not supported: {way_out}", param=name)


_TEXT_FIELD = {"input_text": "text", "output_text": "text", "text": "text", "refusal": "refusal"}
_REQUIRED_FIELDS = {
    "message": "a `role` (user, assistant, system or developer) and `content`",
    "function_call": "`call_id`, `name` and `arguments`, which are strings",
    "function_call_output": "`call_id`, a string, and `output`",
}


def chat_messages(instructions: str | None, items: Sequence[Any]) -> list[ChatMessage]:
    """Merges calls into the preceding assistant message and drops reasoning items.

    Raises InvalidRequest or UnsupportedParameter, naming the item.
    """
    messages: list[ChatMessage] = [_text_message("system", instructions)] if instructions else []
    instruction_count = len(messages)
    for message in filter(None, (_chat_message(f"input.{index}", item) for index, item in enumerate(items))):
        if message.tool_calls and messages and messages[-1].role == "assistant":
            calls = [*messages[-1].tool_calls, *message.tool_calls]
            messages[-1] = messages[-1].model_copy(update={"tool_calls": calls})
        else:
            messages.append(message)
    if len(messages) == instruction_count:
        raise InvalidRequest("`input` has no message; send at least one.", param="input")
    return messages


def _chat_message(path: str, item: Any) -> ChatMessage | None:
    kind = _item_type(path, item)
    match kind, item:
        case "reasoning", _:
            return None
        case "message", {"role": "user" | "assistant" | "system" | "developer" as role, "content": content}:
            return _text_message(role, _content_text(f"{path}.content", content))
        case "function_call", {"call_id": str(id), "name": str(name), "arguments": str(arguments)}:
            call = ToolCall(id=id, function=CalledFunction(name=name, arguments=arguments))
            return ChatMessage(role="assistant", tool_calls=[call])
        case "function_call_output", {"call_id": str(id), "output": output}:
            return _text_message("tool", _content_text(f"{path}.output", output), call_id=id)
    if kind in _REQUIRED_FIELDS:
        raise InvalidRequest(f"`{path}`, a {kind}, needs {_REQUIRED_FIELDS[kind]}.", param=path)
    if kind == "item_reference":
        raise UnsupportedParameter(f"`{path}` refers to an earlier item: {STATELESS_HINT}", param=path)
    raise UnsupportedParameter(
        f"`{path}` is of type {kind[:40]!r}; only messages, function calls and their outputs work.", param=path
    )


def _item_type(path: str, item: Any) -> str:
    kind = (item.get("type") or "message") if isinstance(item, dict) else None
    if not isinstance(kind, str):
        raise InvalidRequest(f"`{path}` should be an object with a `type`.", param=path)
    return kind


def _text_message(role: Role, text: str, *, call_id: str | None = None) -> ChatMessage:
    return ChatMessage(role=role, content=[{"type": "text", "text": text}], tool_call_id=call_id)


def _content_text(path: str, content: Any) -> str:
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise InvalidRequest(f"`{path}` should be a string or a list of parts.", param=path)
    return "".join(_text_of_part(f"{path}.{index}", part) for index, part in enumerate(content))


def _text_of_part(path: str, part: Any) -> str:
    kind = part.get("type") if isinstance(part, dict) else None
    if not isinstance(kind, str):
        raise InvalidRequest(f"`{path}` should be an object with a `type`.", param=path)
    if kind not in _TEXT_FIELD:
        raise UnsupportedParameter(
            f"`{path}` is of type {kind[:40]!r}; this model reads text: send parts of type 'input_text'.", param=path
        )
    text = part.get(_TEXT_FIELD[kind])
    if not isinstance(text, str):
        raise InvalidRequest(f"`{path}` needs a string `{_TEXT_FIELD[kind]}`.", param=path)
    return text


def to_chat_request(body: ResponsesRequest) -> ChatRequest:
    """The equivalent chat request. Raises InvalidRequest or UnsupportedParameter, naming the field of this API."""
    shared = {name: getattr(body, name) for name in GenerationFields.model_fields.keys() & body.model_fields_set}
    return ChatRequest(
        **shared,
        messages=chat_messages(body.instructions, body.input),
        max_completion_tokens=body.max_output_tokens,
        logprobs=body.logprobs,
        top_logprobs=body.top_logprobs if body.logprobs else None,
        response_format=_response_format(body.text.format),
        tools=[_tool(tool) for tool in body.tools],
        tool_choice=_chat_tool_choice(body.tool_choice, body.tools),
        parallel_tool_calls=body.parallel_tool_calls,
        reasoning_effort=body.reasoning.effort,
    )


def _response_format(text_format: TextFormat) -> ResponseFormat:
    if text_format.type != "json_schema" or text_format.name is None:
        return ResponseFormat(type=text_format.type)
    schema = JsonSchema.model_validate({"name": text_format.name, "schema": text_format.schema_})
    return ResponseFormat(type=text_format.type, json_schema=schema)


def _tool(tool: FunctionTool) -> Tool:
    function = OfferedFunction(
        name=tool.name, description=tool.description or "", parameters=tool.parameters or {}, strict=bool(tool.strict)
    )
    return Tool(type="function", function=function)


def _chat_tool_choice(choice: Any, tools: list[FunctionTool]) -> Any:
    """`tool_choice` in the form of `/v1/chat/completions`, which nests names inside `function`."""
    match choice:
        case "none" | "auto":
            return choice
        case "required" if tools:
            return choice
        case {"type": "function", "name": str(name)}:
            return _function_choice(name)
        case {"type": "allowed_tools", "mode": "auto" | "required" as mode, "tools": list(allowed)}:
            return {
                "type": "allowed_tools",
                "allowed_tools": {"mode": mode, "tools": list(map(_chat_allowed_tool, allowed))},
            }
    raise _invalid_choice()


def _chat_allowed_tool(tool: Any) -> dict[str, Any]:
    match tool:
        case {"type": "function", "name": str(name)}:
            return _function_choice(name)
    raise _invalid_choice()


def _function_choice(name: str) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name}}


def _invalid_choice() -> InvalidRequest:
    return InvalidRequest(
        "`tool_choice` should be 'auto' or 'none', or, with `tools`, 'required', a function as "
        '{"type": "function", "name": …}, or `allowed_tools` with a `mode` and such functions as `tools`.',
        param="tool_choice",
    )
