"""A chat's messages as turns: tool calls and their results as such, or as plain text that any template can tell."""

import json
from collections.abc import Sequence

import msgspec

from millm.errors import InvalidRequest
from millm.openai.schemas.chat import ChatMessage
from millm.openai.schemas.tools import CalledFunction
from millm.text.content import text_of
from millm.text.prompt import Call, Message


def turns(messages: Sequence[ChatMessage], *, native: bool) -> list[Message]:
    """`native`: for a template that takes calls and results. Raises InvalidRequest, naming the message, where one says
    nothing, or something that is not text.
    """
    spell = _native if native else _spelled
    return [spell(message, _text(place, message)) for place, message in enumerate(messages)]


def _text(place: int, message: ChatMessage) -> str:
    if message.content is None and message.role not in ("assistant", "tool", "function"):
        raise InvalidRequest(f"`messages.{place}.content` is required.", param=f"messages.{place}.content")
    return text_of(message.content)


def _native(message: ChatMessage, text: str) -> Message:
    if message.role in ("tool", "function"):
        return Message("tool", text, message.name, answers=message.tool_call_id or "")
    return Message(message.role, text, message.name, calls=_calls(message))


def _spelled(message: ChatMessage, text: str) -> Message:
    if message.role in ("tool", "function"):
        return Message("user", f"Tool result: {text}")
    spelled = [_told(call.name, call.arguments) for call in _called(message)]
    return Message(message.role, "\n".join(filter(None, [text, *spelled])), message.name)


def _calls(message: ChatMessage) -> tuple[Call, ...]:
    ids = [call.id for call in message.tool_calls] or [None]
    called = zip(ids, _called(message), strict=False)
    return tuple(Call(call.name, _object(call.arguments), id) for id, call in called)


def _called(message: ChatMessage) -> list[CalledFunction]:
    """Only an assistant calls; `function_call` is the older form."""
    if message.role != "assistant":
        return []
    older = [message.function_call] if message.function_call else []
    return [call.function for call in message.tool_calls] or older


def _object(arguments: object) -> object:
    """Templates expect an object; what is none stays as the model wrote it."""
    try:
        return json.loads(arguments) if isinstance(arguments, str) else arguments
    except (ValueError, RecursionError):
        return arguments


def _told(name: str, arguments: object) -> str:
    return msgspec.json.encode({"name": name, "arguments": arguments}).decode()
