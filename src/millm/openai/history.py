"""A chat's messages as turns: tool calls and their results as such, or as plain text that any template can tell."""

import json
from collections.abc import Sequence

import msgspec

from millm.errors import InvalidRequest
from millm.protocol.request import CalledFunction, ChatMessage
from millm.text.chat_template import PromptMessage, PromptToolCall, content_text


def template_messages(messages: Sequence[ChatMessage], *, native: bool) -> list[PromptMessage]:
    """`native`: for a template that takes calls and results. Raises InvalidRequest, naming the message, where one says
    nothing, or something that is not text.
    """
    spell = _native_message if native else _plain_message
    return [spell(message, _message_text(place, message)) for place, message in enumerate(messages)]


def _message_text(index: int, message: ChatMessage) -> str:
    if message.content is None and message.role not in ("assistant", "tool", "function"):
        raise InvalidRequest(f"`messages.{index}.content` is required.", param=f"messages.{index}.content")
    return content_text(message.content)


def _native_message(message: ChatMessage, text: str) -> PromptMessage:
    if message.role in ("tool", "function"):
        return PromptMessage("tool", text, message.name, tool_call_id=message.tool_call_id or "")
    return PromptMessage(message.role, text, message.name, calls=_calls(message))


def _plain_message(message: ChatMessage, text: str) -> PromptMessage:
    if message.role in ("tool", "function"):
        return PromptMessage("user", f"Tool result: {text}")
    spelled = [_call_as_text(call.name, call.arguments) for call in _called_functions(message)]
    return PromptMessage(message.role, "\n".join(filter(None, [text, *spelled])), message.name)


def _calls(message: ChatMessage) -> tuple[PromptToolCall, ...]:
    ids = [call.id for call in message.tool_calls] or [None]
    called = zip(ids, _called_functions(message), strict=False)
    return tuple(PromptToolCall(call.name, _parsed_arguments(call.arguments), id) for id, call in called)


def _called_functions(message: ChatMessage) -> list[CalledFunction]:
    """Only an assistant calls; `function_call` is the older form."""
    if message.role != "assistant":
        return []
    older = [message.function_call] if message.function_call else []
    return [call.function for call in message.tool_calls] or older


def _parsed_arguments(arguments: object) -> object:
    """Templates expect an object; what is none stays as the model wrote it."""
    try:
        return json.loads(arguments) if isinstance(arguments, str) else arguments
    except (ValueError, RecursionError):
        return arguments


def _call_as_text(name: str, arguments: object) -> str:
    return msgspec.json.encode({"name": name, "arguments": arguments}).decode()
