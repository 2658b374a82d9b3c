"""A chat's messages as turns that any template can tell: tool calls and their results become plain text."""

from collections.abc import Sequence

import msgspec

from millm.errors import InvalidRequest
from millm.openai.schemas.chat import ChatMessage
from millm.text.content import text_of
from millm.text.prompt import Message


def turns(messages: Sequence[ChatMessage]) -> list[Message]:
    """Raises InvalidRequest, naming the message, where one says nothing, or something that is not text."""
    return [_turn(place, message) for place, message in enumerate(messages)]


def _turn(place: int, message: ChatMessage) -> Message:
    text = text_of(message.content)
    if message.role in ("tool", "function"):
        return Message("user", f"Tool result: {text}")
    if message.role == "assistant":
        calls = [_call(call.function.name, call.function.arguments) for call in message.tool_calls]
        return Message("assistant", "\n".join(filter(None, [text, *calls])), message.name)
    if message.content is None:
        raise InvalidRequest(f"`messages.{place}.content` is required.", param=f"messages.{place}.content")
    return Message(message.role, text, message.name)


def _call(name: str, arguments: object) -> str:
    return msgspec.json.encode({"name": name, "arguments": arguments}).decode()
