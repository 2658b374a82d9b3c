"""The one shape of every error: `{"error": {"message", "type", "param", "code"}}`, all four keys always there."""

from typing import Any

import msgspec
from fastapi import Response

from millm.errors import MillmError

INTERNAL = "Something failed inside miLLM; its log tells what, under this answer's `x-request-id`."


def envelope(failure: Exception) -> dict[str, Any]:
    """The error object of `failure`; whatever is not our own error is told only as an internal one."""
    told = _told_outside(failure)
    return {"error": {"message": told.message, "type": told.type, "param": told.param, "code": told.code}}


def answer_failure(failure: Exception) -> Response:
    """The whole answer: status, envelope, when to come again and whether a retry could help at all."""
    told = _told_outside(failure)
    return error_response(told.status, envelope(told), _retry_headers(told))


def error_response(status: int, body: dict[str, Any], headers: dict[str, str] | None = None) -> Response:
    return Response(msgspec.json.encode(body), status, headers, media_type="application/json")


def _told_outside(failure: Exception) -> MillmError:
    return failure if isinstance(failure, MillmError) else MillmError(INTERNAL)


def _retry_headers(failure: MillmError) -> dict[str, str]:
    if failure.retry_after_seconds is not None:
        return {"Retry-After": str(failure.retry_after_seconds)}
    # The official clients repeat every 5xx by themselves; what raised once would raise again.
    return {"x-should-retry": "false"} if failure.status >= 500 else {}
