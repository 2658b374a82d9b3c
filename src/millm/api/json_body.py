"""Strict JSON bodies: decoded and bounded before FastAPI validates the fields.

Python's own `json` accepts NaN, Infinity and lone surrogates, which crash a later serialisation.
"""

import json
from collections.abc import Callable, Coroutine, Iterable
from typing import Any

import msgspec
from fastapi import Request, Response
from fastapi.routing import APIRoute

MAX_DEPTH = 64
"""Nesting of lists and objects."""
MAX_KEYS = 4096
"""Limit for one object."""
MAX_CONTAINERS = 65_536
"""Limit for one body, which bounds the number of validation errors: they take more memory than the body."""


class JsonRequest(Request):
    async def json(self) -> Any:
        """Raises json.JSONDecodeError, which FastAPI turns into a validation error."""
        try:
            decoded = msgspec.json.decode(await self.body())
        except RecursionError as error:
            raise _decode_error(f"it is nested deeper than {MAX_DEPTH} levels") from error
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise _decode_error("it must be UTF-8, without NaN, Infinity or half surrogate pairs") from error
        _check_shape(decoded)
        return decoded


def _check_shape(decoded: Any) -> None:
    """Raises json.JSONDecodeError. Walks level by level, without recursion."""
    level, container_count = [decoded], 0
    for _ in range(MAX_DEPTH):
        if any(type(container) is dict and len(container) > MAX_KEYS for container in level):
            raise _decode_error(f"an object has more than {MAX_KEYS:,} keys")
        level = [child for container in level for child in _children(container) if type(child) in (dict, list)]
        container_count += len(level)
        if container_count > MAX_CONTAINERS:
            raise _decode_error(f"it has more than {MAX_CONTAINERS:,} lists and objects")
        if not level:
            return
    raise _decode_error(f"it is nested deeper than {MAX_DEPTH} levels")


def _children(container: Any) -> Iterable[Any]:
    if type(container) is dict:
        return container.values()
    return container if type(container) is list else ()


def _decode_error(reason: str) -> json.JSONDecodeError:
    return json.JSONDecodeError(reason, "", 0)


class JsonRoute(APIRoute):
    """Parses the body as JSON regardless of its Content-Type."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def handle_json(request: Request) -> Response:
            return await handle(JsonRequest(_with_json_content_type(request), request.receive))

        return handle_json


def _with_json_content_type(request: Request) -> dict[str, Any]:
    others = [(name, value) for name, value in request.scope["headers"] if name != b"content-type"]
    return {**request.scope, "headers": [*others, (b"content-type", b"application/json")]}
