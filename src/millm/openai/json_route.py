"""Reading a body: strict JSON whatever the Content-Type says, before FastAPI validates its fields.

Python's own `json` accepts NaN, Infinity and lone surrogates, which crash whoever serialises them later.
"""

import json
from collections.abc import Callable, Coroutine, Iterable
from typing import Any

import msgspec
from fastapi import Request, Response
from fastapi.routing import APIRoute

DEEPEST = 64
"""Levels of lists and objects in each other."""
MOST_KEYS = 4096
"""Of one object."""
MOST_CONTAINERS = 65_536
"""Lists and objects of one body: as many complaints could be made of it, and they take more memory than it does."""


class JsonRequest(Request):
    """A request whose body is JSON or nothing."""

    async def json(self) -> Any:
        """The decoded body. Raises json.JSONDecodeError, which FastAPI turns into a validation error."""
        try:
            decoded = msgspec.json.decode(await self.body())
        except RecursionError as wrong:
            raise _refused(f"it is nested deeper than {DEEPEST} levels") from wrong
        except (msgspec.DecodeError, UnicodeDecodeError) as wrong:
            raise _refused("it must be UTF-8, without NaN, Infinity or half surrogate pairs") from wrong
        _check_shape(decoded)
        return decoded


def _check_shape(decoded: Any) -> None:
    """Raises json.JSONDecodeError. Level by level, without recursion."""
    level, seen = [decoded], 0
    for _ in range(DEEPEST):
        if any(type(container) is dict and len(container) > MOST_KEYS for container in level):
            raise _refused(f"an object has more than {MOST_KEYS:,} keys")
        level = [child for container in level for child in _children(container) if type(child) in (dict, list)]
        seen += len(level)
        if seen > MOST_CONTAINERS:
            raise _refused(f"it has more than {MOST_CONTAINERS:,} lists and objects")
        if not level:
            return
    raise _refused(f"it is nested deeper than {DEEPEST} levels")


def _children(container: Any) -> Iterable[Any]:
    if type(container) is dict:
        return container.values()
    return container if type(container) is list else ()


def _refused(reason: str) -> json.JSONDecodeError:
    return json.JSONDecodeError(reason, "", 0)


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
