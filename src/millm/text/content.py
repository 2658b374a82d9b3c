"""The text of a message's content, which may come in parts; refuses by name what is not text."""

from collections.abc import Mapping, Sequence

from millm.errors import InvalidRequest, UnsupportedParameter

_TEXT_FIELD_BY_TYPE = {"text": "text", "refusal": "refusal"}


def content_text(content: str | Sequence[Mapping[str, object]] | None) -> str:
    """Text parts joined as they are. Raises UnsupportedParameter for images, audio and files."""
    if content is None:
        return ""
    return content if isinstance(content, str) else "".join(map(_part_text, content))


def _part_text(part: Mapping[str, object]) -> str:
    kind = part.get("type")
    if not isinstance(kind, str) or kind not in _TEXT_FIELD_BY_TYPE:
        raise UnsupportedParameter(
            f"messages: content of type {str(kind)[:40]!r} is not supported, this model reads text; "
            "send parts of type 'text'",
            param="messages",
        )
    text = part.get(_TEXT_FIELD_BY_TYPE[kind])
    if not isinstance(text, str):
        raise InvalidRequest(f"messages: a part of type {kind!r} needs a string {kind!r}", param="messages")
    return text
