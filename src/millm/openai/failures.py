"""Which failure becomes which answer, for every route of the application."""

from http import HTTPStatus
from typing import cast

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from millm.errors import InvalidRequest, MillmError, NotFound
from millm.openai.edge import LARGEST_BODY, RequestEdge
from millm.openai.envelope import answer_failure, error_response
from millm.openai.validation import dotted, sentence

CLIENT_CLOSED_REQUEST = 499
"""nginx's status for its log; nobody reads this answer."""

_BY_STATUS = {
    404: (NotFound.code, "Nothing is served at this address; OpenAI's API is under /v1."),
    405: (
        "method_not_supported",
        "This address does not take that method; the header `Allow` names what it takes.",
    ),
    413: ("request_too_large", f"The body is too large; the limit is {LARGEST_BODY // 2**20} MiB."),
}


def install_error_handlers(app: FastAPI) -> None:
    """Make `app` answer every failure in the envelope, and put a request id on every answer."""
    app.add_exception_handler(MillmError, _on_millm_error)
    app.add_exception_handler(RequestValidationError, _on_validation_error)
    app.add_exception_handler(HTTPException, _on_http_exception)
    app.add_exception_handler(ClientDisconnect, _on_client_gone)
    app.add_middleware(RequestEdge)


async def _on_millm_error(_: Request, failure: Exception) -> Response:
    return answer_failure(failure)


async def _on_validation_error(_: Request, failure: Exception) -> Response:
    first = cast(RequestValidationError, failure).errors()[0]
    return answer_failure(InvalidRequest(sentence(first), param=dotted(first)))


async def _on_http_exception(_: Request, failure: Exception) -> Response:
    refused = cast(HTTPException, failure)
    status = refused.status_code
    code, message = _BY_STATUS.get(status, (InvalidRequest.code, f"{HTTPStatus(status).phrase}."))
    error = {"message": message, "type": InvalidRequest.type, "param": None, "code": code}
    return error_response(status, {"error": error}, dict(refused.headers or {}))


async def _on_client_gone(_: Request, __: Exception) -> Response:
    return Response(status_code=CLIENT_CLOSED_REQUEST)
