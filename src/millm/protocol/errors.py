"""The one format of every error: `{"error": {"message", "type", "param", "code"}}`.

Also turns pydantic's errors into sentences, which name the field and its allowed values, never the value that was sent.
"""

from collections.abc import Sequence
from http import HTTPStatus
from typing import Any

import msgspec
from fastapi import Response

from millm.errors import MillmError

INTERNAL_ERROR_MESSAGE = "Something failed inside miLLM; its log has the cause under this response's `x-request-id`."


def error_body(failure: Exception) -> dict[str, Any]:
    """The error object; any exception but a MillmError is reported as an internal error."""
    error = _as_millm_error(failure)
    return {"error": {"message": error.message, "type": error.type, "param": error.param, "code": error.code}}


def failure_response(failure: Exception) -> Response:
    """The response: status, error object and retry headers."""
    error = _as_millm_error(failure)
    return error_response(error.status, error_body(error), _retry_headers(error))


def error_response(status: int, body: dict[str, Any], headers: dict[str, str] | None = None) -> Response:
    return Response(msgspec.json.encode(body), status, headers, media_type="application/json")


def _as_millm_error(failure: Exception) -> MillmError:
    return failure if isinstance(failure, MillmError) else MillmError(INTERNAL_ERROR_MESSAGE)


def _retry_headers(failure: MillmError) -> dict[str, str]:
    if failure.retry_after_seconds is not None:
        return {"Retry-After": str(failure.retry_after_seconds)}
    if failure.status == HTTPStatus.UNAUTHORIZED:
        return {"WWW-Authenticate": "Bearer"}
    # OpenAI's clients retry these on their own; the same request would fail again.
    is_retried = failure.status >= 500 or failure.status in (HTTPStatus.CONFLICT, HTTPStatus.TOO_MANY_REQUESTS)
    return {"x-should-retry": "false"} if is_retried else {}


MAX_PARAM_CHARS = 128
"""Limit for `param`: a path may contain a key of the client."""


def error_sentence(error: dict[str, Any]) -> str:
    """One sentence for one item of `ValidationError.errors()`."""
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
    """The field as `messages.0.role`, or None for the entire body."""
    path: Sequence[str | int] = error["loc"][1:]  # without "body", "query", "path" or "header"
    if error["type"] == "json_invalid":
        return None
    if path and path[-1] == "[key]":
        path = path[:-2]
    return ".".join(str(part) for part in path)[:MAX_PARAM_CHARS] or None
