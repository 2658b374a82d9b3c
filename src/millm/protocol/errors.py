"""The one shape of every error: `{"error": {"message", "type", "param", "code"}}`, all four keys always there.

A pydantic complaint as one sentence: which field, what it may be. Never what was sent.
"""

from collections.abc import Sequence
from http import HTTPStatus
from typing import Any

import msgspec
from fastapi import Response

from millm.errors import MillmError

INTERNAL_ERROR_MESSAGE = "Something failed inside miLLM; its log tells what, under this answer's `x-request-id`."


def error_body(failure: Exception) -> dict[str, Any]:
    """The error object of `failure`; whatever is not our own error is told only as an internal one."""
    told = _as_millm_error(failure)
    return {"error": {"message": told.message, "type": told.type, "param": told.param, "code": told.code}}


def failure_response(failure: Exception) -> Response:
    """The whole answer: status, envelope, when to come again and whether a retry could help at all."""
    told = _as_millm_error(failure)
    return error_response(told.status, error_body(told), _retry_headers(told))


def error_response(status: int, body: dict[str, Any], headers: dict[str, str] | None = None) -> Response:
    return Response(msgspec.json.encode(body), status, headers, media_type="application/json")


def _as_millm_error(failure: Exception) -> MillmError:
    return failure if isinstance(failure, MillmError) else MillmError(INTERNAL_ERROR_MESSAGE)


def _retry_headers(failure: MillmError) -> dict[str, str]:
    if failure.retry_after_seconds is not None:
        return {"Retry-After": str(failure.retry_after_seconds)}
    if failure.status == HTTPStatus.UNAUTHORIZED:
        return {"WWW-Authenticate": "Bearer"}
    # The official clients repeat these by themselves; what failed once would fail again.
    is_repeated = failure.status >= 500 or failure.status in (HTTPStatus.CONFLICT, HTTPStatus.TOO_MANY_REQUESTS)
    return {"x-should-retry": "false"} if is_repeated else {}


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
