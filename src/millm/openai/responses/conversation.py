"""`instructions` and `input` as a chat's messages."""

from collections.abc import Sequence
from typing import Any

from millm.errors import InvalidRequest, UnsupportedParameter
from millm.openai.responses.refused import STATELESS_HINT
from millm.protocol.request import CalledFunction, ChatMessage, Role, ToolCall

_TEXT_FIELD = {"input_text": "text", "output_text": "text", "text": "text", "refusal": "refusal"}

_REQUIRED_FIELDS = {
    "message": "a `role` (user, assistant, system or developer) and `content`",
    "function_call": "`call_id`, `name` and `arguments`, which are strings",
    "function_call_output": "`call_id`, a string, and `output`",
}


def chat_messages(instructions: str | None, items: Sequence[Any]) -> list[ChatMessage]:
    """What the assistant said and called in one go is one message; earlier reasoning is left out.

    Raises InvalidRequest or UnsupportedParameter, naming the item.
    """
    told = [_chat_message(f"input.{place}", item) for place, item in enumerate(items)]
    found: list[ChatMessage] = []
    for message in filter(None, told):
        if message.tool_calls and found and found[-1].role == "assistant":
            calls = [*found[-1].tool_calls, *message.tool_calls]
            found[-1] = found[-1].model_copy(update={"tool_calls": calls})
        else:
            found.append(message)
    if not found:
        raise InvalidRequest("`input` has no message; send at least one.", param="input")
    return [_text_message("system", instructions), *found] if instructions else found


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
    """Of a string, or of parts that are text."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise InvalidRequest(f"`{path}` should be a string or a list of parts.", param=path)
    return "".join(_text_of_part(f"{path}.{part}", sent) for part, sent in enumerate(content))


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
