"""A ring buffer of the latest log lines of the server and engine, for `GET /api/logs`."""

import logging
import re
import threading
from collections import deque
from collections.abc import Mapping
from typing import Any

import msgspec

MAX_LINES = 2000
_MAX_TEXT = 2000
"""Characters of one value."""

_OUR_FRAME = re.compile(r'File "[^"]*?(millm/[^"]+)", line (\d+)')


class LogEntry(msgspec.Struct, frozen=True, kw_only=True):
    number: int
    """Counts from 1 at server start."""
    time: str
    """ISO 8601, UTC."""
    level: str
    """`debug`, `info`, `warning`, `error` or `critical`."""
    event: str
    fields: dict[str, Any]


class RecentLines:
    """Thread-safe."""

    def __init__(self) -> None:
        self._lines: deque[LogEntry] = deque(maxlen=MAX_LINES)
        self._last_number = 0
        self._lock = threading.Lock()

    def add(self, line: Mapping[str, Any]) -> None:
        """Append structlog's event dict, converted to JSON types."""
        fields = {name: _truncate(value) for name, value in line.items() if name not in ("timestamp", "level", "event")}
        time, level, event = (str(line.get(name, "")) for name in ("timestamp", "level", "event"))
        with self._lock:
            self._last_number += 1
            self._lines.append(
                LogEntry(number=self._last_number, time=time, level=level, event=_truncate(event), fields=fields)
            )

    def lines(self, *, level: str = "debug", limit: int = MAX_LINES, after: int | None = None) -> list[LogEntry]:
        """Lines of at least `level`, oldest first: the latest `limit`, or the first `limit` after number `after`.

        An `after` above the last number is of a previous server run: then all lines are new.
        """
        with self._lock:
            lines, last = list(self._lines), self._last_number
        matching = [line for line in lines if _severity(line.level) >= _severity(level)]
        if after is None:
            return matching[-limit:]
        return [line for line in matching if line.number > after or after > last][:limit]


def without_trace(line: Mapping[str, Any]) -> dict[str, Any]:
    """The line with its traceback reduced to the exception and the last frame in this package."""
    return {**line, "exception": _exception_summary(str(line["exception"]))} if "exception" in line else dict(line)


def _severity(level: str) -> int:
    return logging.getLevelNamesMapping().get(level.upper(), logging.NOTSET)


def _truncate(value: Any) -> Any:
    return f"{value[:_MAX_TEXT]}…" if isinstance(value, str) and len(value) > _MAX_TEXT else value


def _exception_summary(trace: str) -> str:
    """`ValueError: what was wrong (millm/hub/library.py:31)`."""
    flush_left = [line for line in trace.splitlines() if line and not line[0].isspace()]
    frames = _OUR_FRAME.findall(trace)
    where = f" ({frames[-1][0]}:{frames[-1][1]})" if frames else ""
    return (flush_left[-1] if flush_left else "")[:_MAX_TEXT] + where
