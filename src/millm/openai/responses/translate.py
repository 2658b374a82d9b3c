"""A request for a response as the chat request that asks for the same: from there on there is one way to an answer."""

from typing import Any

from millm.errors import InvalidRequest
from millm.openai.responses.conversation import chat_messages
from millm.openai.responses.request import FunctionTool, ResponsesRequest, TextFormat
from millm.protocol.request import ChatRequest, GenerationFields, JsonSchema, OfferedFunction, ResponseFormat, Tool


def to_chat_request(body: ResponsesRequest) -> ChatRequest:
    """Raises InvalidRequest or UnsupportedParameter, naming the field as it is called here."""
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
    """Where the one API names a function at once, the other puts it inside `function`."""
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
