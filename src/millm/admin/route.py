"""How a route under `/api` answers, and how it refuses: 400 for a body that is no JSON, 422 for what cannot be done."""

from collections.abc import Callable, Coroutine
from typing import Any

import msgspec
from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError

from millm.errors import InvalidRequest
from millm.openai.json_route import JsonRoute
from millm.protocol.errors import error_body, error_response, error_sentence, field_path

UNPROCESSABLE = 422


class AdminRoute(JsonRoute):
    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def handle_admin(request: Request) -> Response:
            try:
                return await handle(request)
            except RequestValidationError as wrong:
                first = wrong.errors()[0]
                if first["type"] == "json_invalid":
                    raise
                return _unprocessable(InvalidRequest(error_sentence(first), param=field_path(first)))
            except InvalidRequest as refused:
                return _unprocessable(refused)

        return handle_admin


def _unprocessable(refused: InvalidRequest) -> Response:
    return error_response(UNPROCESSABLE, error_body(refused))


def json_response(value: object, status: int = 200) -> Response:
    """The answer with `value` as JSON."""
    return Response(msgspec.json.encode(value), status, media_type="application/json")
