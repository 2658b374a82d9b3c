"""A pydantic complaint as one sentence: which field, what it may be. Never what was sent."""

from collections.abc import Sequence
from typing import Any

MAX_PARAM_CHARS = 128
"""Characters of `param`: a path may hold a key the client made up."""


def error_sentence(error: dict[str, Any]) -> str:
    """One sentence of one item of `ValidationError.errors()`."""
    name = field_path(error)
    if error["type"] == "json_invalid":
        return f"The body is not valid JSON: {error['ctx']['error']}."
    if name is None:
        return "The body must be a JSON object."
    if error["type"] == "missing":
        return f"`{name}` is required."
    reason = str(error["msg"])
    if reason.startswith("Input "):
        return f"`{name}` {reason.removeprefix('Input ')}."
    return f"`{name}`: {reason.removeprefix('Value error, ')}."


def field_path(error: dict[str, Any]) -> str | None:
    """The field as `messages.0.role`, or None for the body as a whole."""
    place: Sequence[str | int] = error["loc"][1:]  # without "body", "query", "path" or "header"
    if error["type"] == "json_invalid":
        return None
    if place and place[-1] == "[key]":
        place = place[:-2]
    return ".".join(str(part) for part in place)[:MAX_PARAM_CHARS] or None
