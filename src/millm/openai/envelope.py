"""The one shape of every error: `{"error": {"message", "type", "param", "code"}}`, all four keys always there."""

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
