"""The HTTP client below huggingface_hub: it does not wait in secret, and a reset only interrupts a file.

huggingface_hub waits by itself when the hub is busy, where nobody sees it, and gives a whole file up for a TCP reset,
though it goes on after a connection that ends early. Version 1 uses `httpx`,
version 2 `httpx2`: two names, one library.
"""

import importlib
from collections.abc import Iterator
from typing import Any

from huggingface_hub import get_session

_http = importlib.import_module(type(get_session()).__module__.partition(".")[0])

TransportError: type[Exception] = _http.TransportError
"""No connection, none any more, or no answer in time."""

_BUSY_STATUSES = {408, 425, 429, 500, 502, 503, 504}


class HubBusy(Exception):
    """The hub answers that it cannot now."""

    def __init__(self, status: int, retry_after: float | None) -> None:
        super().__init__(f"status {status}")
        self.status = status
        self.retry_after = retry_after
        """Seconds it wants to be left alone."""


class _ResumableStream(_http.SyncByteStream):  # type: ignore[misc,name-defined]  # one of two modules
    """A body whose reset looks like an early end, after which huggingface_hub asks for the rest."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def __iter__(self) -> Iterator[bytes]:
        try:
            yield from self._stream
        except _http.ReadError as error:
            raise _http.RemoteProtocolError("reset") from error

    def close(self) -> None:
        self._stream.close()


def patch_session() -> None:
    """From now on requests raise Busy; repeated, since huggingface_hub may have made a new session."""
    session = get_session()
    hooks = session.event_hooks
    if _on_response not in hooks["response"]:
        session.event_hooks = {**hooks, "response": [*hooks["response"], _on_response]}


def _on_response(response: Any) -> None:
    if response.status_code in _BUSY_STATUSES:
        raise HubBusy(response.status_code, _parse_retry_after(response.headers.get("retry-after")))
    response.stream = _ResumableStream(response.stream)


def _parse_retry_after(header: str | None) -> float | None:
    """A date, which is allowed too and which Hugging Face does not send, is left alone."""
    return float(header) if header and header.isdecimal() else None
