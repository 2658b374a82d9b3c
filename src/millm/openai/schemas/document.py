"""What the OpenAPI document says of answers; FastAPI knows only the bodies of requests."""

from typing import Any

from pydantic import BaseModel


class Error(BaseModel):
    """Why a request was refused, or failed."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorAnswer(BaseModel):
    """Every answer with a status of 400 or more."""

    error: Error


ERROR_RESPONSES: dict[int | str, dict[str, Any]] = {
    "4XX": {"model": ErrorAnswer, "description": "Refused; nothing has changed."},
    "5XX": {"model": ErrorAnswer, "description": "Failed, or not now."},
}

STREAM_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {"content": {"application/json": {}, "text/event-stream": {"schema": {"type": "string"}}}}
}
"""An answer, or with `stream: true` its events."""
