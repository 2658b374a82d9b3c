"""The server's doors: who is inside for an answer, and, once they close, who is let in all the same."""

from collections.abc import Iterator
from contextlib import contextmanager

from millm.errors import ShuttingDown

EXPERIMENT_PATHS = frozenset(("/api/compare", "/api/sweep", "/api/calibrate"))
"""Under `/api`, what asks the model."""
_READ_METHODS = ("GET", "HEAD", "OPTIONS")


class DrainGate:
    """Lives on one event loop."""

    def __init__(self) -> None:
        self.active_requests = 0
        """Requests that asked the model, and have not got their whole answer yet."""
        self.is_draining = False

    def start_draining(self) -> None:
        """For good: the server is about to stop. Who looks (`/readyz`, `/api/status`, …) is still let in."""
        self.is_draining = True

    def check(self, kind: str, method: str) -> None:
        """`kind`: `http` or `websocket`. Raises ShuttingDown."""
        if self.is_draining and (kind == "websocket" or method not in _READ_METHODS):
            raise ShuttingDown("the server is being stopped; try again when it is back")

    @contextmanager
    def track_request(self, method: str, path: str) -> Iterator[None]:
        if not is_model_request(method, path):
            yield
            return
        self.active_requests += 1
        try:
            yield
        finally:
            self.active_requests -= 1


def is_model_request(method: str, path: str) -> bool:
    return method == "POST" and (path.startswith("/v1/") or path in EXPERIMENT_PATHS)
