"""The server's doors: who is inside for an answer, and, once they close, who is let in all the same."""

from collections.abc import Iterator
from contextlib import contextmanager

from millm.errors import ShuttingDown

EXPERIMENTS = frozenset(("/api/compare", "/api/sweep", "/api/calibrate"))
"""Under `/api`, what asks the model."""
_LOOKS = ("GET", "HEAD", "OPTIONS")


class Doors:
    """Lives on one event loop."""

    def __init__(self) -> None:
        self.inside = 0
        """Requests that asked the model, and have not got their whole answer yet."""
        self.are_closing = False

    def close(self) -> None:
        """For good: the server is about to stop. Who looks (`/readyz`, `/api/status`, …) is still let in."""
        self.are_closing = True

    def check(self, kind: str, method: str) -> None:
        """`kind`: `http` or `websocket`. Raises ShuttingDown."""
        if self.are_closing and (kind == "websocket" or method not in _LOOKS):
            raise ShuttingDown("the server is being stopped; try again when it is back")

    @contextmanager
    def passing(self, method: str, path: str) -> Iterator[None]:
        if not asks_model(method, path):
            yield
            return
        self.inside += 1
        try:
            yield
        finally:
            self.inside -= 1


def asks_model(method: str, path: str) -> bool:
    return method == "POST" and (path.startswith("/v1/") or path in EXPERIMENTS)
