"""Reading a body: strict JSON whatever the Content-Type says, before FastAPI validates its fields.

Python's own `json` accepts NaN, Infinity and lone surrogates, which crash whoever serialises them later.
"""

import json
from collections.abc import Callable, Coroutine
from typing import Any

import msgspec
from fastapi import Request, Response
from fastapi.routing import APIRoute


class JsonRequest(Request):
    """A request whose body is JSON or nothing."""

    async def json(self) -> Any:
        """The decoded body. Raises json.JSONDecodeError, which FastAPI turns into a validation error."""
        try:
            return msgspec.json.decode(await self.body())
        except RecursionError as wrong:
            raise json.JSONDecodeError("it is nested too deeply", "", 0) from wrong
        except (msgspec.DecodeError, UnicodeDecodeError) as wrong:
            raise json.JSONDecodeError(
                "it must be UTF-8, without NaN, Infinity or half surrogate pairs", "", 0
            ) from wrong


class JsonRoute(APIRoute):
    """A route that takes its body as JSON, also from clients that send it as `text/plain` or untyped."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def handle_json(request: Request) -> Response:
            return await handle(JsonRequest(_typed_as_json(request), request.receive))

        return handle_json


def _typed_as_json(request: Request) -> dict[str, Any]:
    others = [(name, value) for name, value in request.scope["headers"] if name != b"content-type"]
    return {**request.scope, "headers": [*others, (b"content-type", b"application/json")]}
