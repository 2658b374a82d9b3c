"""Which failure becomes which answer, for every route of the application."""

from functools import partial
from http import HTTPStatus
from typing import cast

from fastapi import FastAPI, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, HTTPConnection
from starlette.routing import Match
from starlette.websockets import WebSocket, WebSocketState

from millm.errors import InvalidRequest, MillmError, NotFound
from millm.monitoring.metrics import Meter
from millm.openai.edge import DEFAULT_MAX_BODY_BYTES, RequestMiddleware
from millm.openai.ended import report_request_end
from millm.protocol.errors import error_response, error_sentence, failure_response, field_path

CLIENT_CLOSED_REQUEST = 499
"""nginx's status for its log; nobody reads this answer."""

_ERRORS_BY_STATUS = {
    404: (NotFound.code, "Nothing is served at this address; OpenAI's API is under /v1."),
    405: (
        "method_not_supported",
        "This address does not take that method; the header `Allow` names what it takes.",
    ),
}
_WS_INTERNAL_ERROR = 1011
"""https://www.rfc-editor.org/rfc/rfc6455#section-7.4.1"""


def install_error_handlers(
    app: FastAPI, max_body_bytes: int = DEFAULT_MAX_BODY_BYTES, meter: Meter | None = None
) -> None:
    """Make `app` answer every failure in the envelope, put a request id on every answer, and log and count its end.

    `largest_body`: bytes; more is refused.
    """
    app.add_exception_handler(MillmError, _on_millm_error)
    app.add_exception_handler(RequestValidationError, _on_validation_error)
    app.add_exception_handler(HTTPException, _on_http_exception)
    app.add_exception_handler(ClientDisconnect, _on_client_gone)
    app.add_middleware(
        RequestMiddleware, largest_body=max_body_bytes, on_end=partial(report_request_end, meter or Meter())
    )


async def _on_millm_error(connection: HTTPConnection, failure: Exception) -> Response:
    answer = failure_response(failure)
    if isinstance(connection, WebSocket):
        await _close_websocket(connection, answer)
    return answer


async def _close_websocket(websocket: WebSocket, answer: Response) -> None:
    """Whoever has not been let in gets the answer itself; within a conversation it can only be ended."""
    has_begun = websocket.application_state is not WebSocketState.CONNECTING
    if has_begun or "websocket.http.response" not in websocket.scope.get("extensions", {}):
        await websocket.close(_WS_INTERNAL_ERROR)
    else:
        await websocket.send_denial_response(answer)


async def _on_validation_error(_: HTTPConnection, failure: Exception) -> Response:
    first = cast(RequestValidationError, failure).errors()[0]
    return failure_response(InvalidRequest(error_sentence(first), param=field_path(first)))


async def _on_http_exception(connection: HTTPConnection, failure: Exception) -> Response:
    refused = cast(HTTPException, failure)
    status, headers = refused.status_code, dict(refused.headers or {})
    code, message = _ERRORS_BY_STATUS.get(status, (InvalidRequest.code, f"{HTTPStatus(status).phrase}."))
    if status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
        code, message = "request_too_large", refused.detail
    if status == HTTPStatus.METHOD_NOT_ALLOWED:
        headers["Allow"] = ", ".join(sorted(_methods(connection)))
    error = {"message": message, "type": InvalidRequest.type, "param": None, "code": code}
    return error_response(status, {"error": error}, headers)


def _methods(connection: HTTPConnection) -> set[str]:
    """All that the address takes: each of its routes knows only its own."""
    known = ("GET", "POST", "PUT", "PATCH", "DELETE")
    taken = {method for method in known if _is_taken(connection, method)}
    return {*taken, "HEAD"} if "GET" in taken else taken


def _is_taken(connection: HTTPConnection, method: str) -> bool:
    asked = {**connection.scope, "method": method}
    return any(route.matches(asked)[0] is Match.FULL for route in connection.app.routes)


async def _on_client_gone(_: HTTPConnection, __: Exception) -> Response:
    return Response(status_code=CLIENT_CLOSED_REQUEST)
