"""Which functions a chat may call and whether it must: `tools`, `tool_choice` and their older names as one value."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from millm.errors import InvalidRequest, UnsupportedParameter
from millm.protocol.request import ChatRequest, OfferedFunction
from millm.text.chat_template import Function
from millm.text.json_schema import check_schema

MAX_TOOLS = 128


@dataclass(frozen=True)
class ToolConfig:
    """Functions that the answer may call."""

    functions: tuple[Function, ...] = ()
    choice: Literal["auto", "required", "named"] = "auto"
    parallel_calls: bool = True

    @property
    def is_forced(self) -> bool:
        return self.choice != "auto"


def tool_config_of(body: ChatRequest, *, tools_enabled: bool) -> ToolConfig:
    """`tools_enabled`: setting of the operator. Raises InvalidRequest or UnsupportedParameter."""
    functions = [_checked_function(offered) for offered in _defined_functions(body)]
    _check(functions)
    chosen = _resolve_choice(functions, _requested_choice(body), body.parallel_tool_calls)
    if tools_enabled:
        return chosen
    if chosen.is_forced:
        raise UnsupportedParameter(
            "`tool_choice`: tools are turned off on this server; 'auto' and 'none' are accepted.", param="tool_choice"
        )
    return ToolConfig()


def _defined_functions(body: ChatRequest) -> list[OfferedFunction]:
    return [tool.function for tool in body.tools] or body.functions


def _requested_choice(body: ChatRequest) -> Any:
    """`tool_choice`, or the older `function_call` in its form."""
    if body.tool_choice is not None or body.function_call is None:
        return body.tool_choice or "auto"
    if isinstance(body.function_call, dict):
        return {"type": "function", "function": body.function_call}
    return body.function_call


def _checked_function(definition: OfferedFunction) -> Function:
    check_schema(definition.parameters, f"the parameters of `{definition.name}`", "tools")
    if definition.parameters.get("type", "object") != "object":
        raise InvalidRequest(f"the parameters of `{definition.name}` must be of type 'object'.", param="tools")
    return Function(definition.name, definition.description, definition.parameters)


def _check(functions: Sequence[Function]) -> None:
    if len(functions) > MAX_TOOLS:
        raise InvalidRequest(f"`tools` accepts at most {MAX_TOOLS} functions.", param="tools")
    names = [function.name for function in functions]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise InvalidRequest(f"`tools` has two functions named `{twice}`; give each its own name.", param="tools")


def _resolve_choice(functions: Sequence[Function], choice: Any, parallel: bool | None) -> ToolConfig:
    match choice:
        case "none":
            return ToolConfig()
        case "auto":
            return ToolConfig(tuple(functions), parallel_calls=parallel is not False)
        case "required" if functions:
            return ToolConfig(tuple(functions), "required", parallel_calls=parallel is True)
        case {"type": "function", "function": {"name": str(name)}}:
            return ToolConfig(tuple(_functions_named(functions, [name])), "named", parallel_calls=False)
        case {"type": "allowed_tools", "allowed_tools": {"mode": "auto" | "required" as mode, "tools": list(tools)}}:
            return _resolve_choice(
                _functions_named(functions, [_allowed_tool_name(tool) for tool in tools]), mode, parallel
            )
    raise InvalidRequest(
        "`tool_choice` should be 'auto' or 'none', or, with `tools`, 'required', a function as "
        '{"type": "function", "function": {"name": …}}, or `allowed_tools`.',
        param="tool_choice",
    )


def _functions_named(functions: Sequence[Function], names: Sequence[str]) -> list[Function]:
    if set(names) - {function.name for function in functions}:
        raise InvalidRequest("`tool_choice` names a function that is not in `tools`.", param="tool_choice")
    return [function for function in functions if function.name in names]


def _allowed_tool_name(tool: Any) -> str:
    match tool:
        case {"type": "function", "function": {"name": str(name)}}:
            return name
    raise InvalidRequest(
        '`tool_choice` lists its tools as {"type": "function", "function": {"name": …}}.', param="tool_choice"
    )
