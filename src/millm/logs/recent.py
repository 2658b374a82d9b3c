"""The latest log lines of the server and of its engine, numbered, for whoever looks at them over HTTP."""

import logging
import re
import threading
from collections import deque
from collections.abc import Mapping
from typing import Any

import msgspec

MAX_LINES = 2000
_MAX_TEXT = 2000
"""Characters of one text."""

_OUR_FRAME = re.compile(r'File "[^"]*?(millm/[^"]+)", line (\d+)')


class LogEntry(msgspec.Struct, frozen=True, kw_only=True):
    number: int
    """Counts from 1 since the server started."""
    time: str
    """ISO 8601, UTC."""
    level: str
    """`debug`, `info`, `warning`, `error` or `critical`."""
    event: str
    fields: dict[str, Any]


class RecentLines:
    """Added to from any thread."""

    def __init__(self) -> None:
        self._lines: deque[LogEntry] = deque(maxlen=MAX_LINES)
        self._last_number = 0
        self._lock = threading.Lock()

    def add(self, line: Mapping[str, Any]) -> None:
        """What structlog has of a line, as plain values."""
        fields = {name: _truncate(value) for name, value in line.items() if name not in ("timestamp", "level", "event")}
        time, level, event = (str(line.get(name, "")) for name in ("timestamp", "level", "event"))
        with self._lock:
            self._last_number += 1
            self._lines.append(
                LogEntry(number=self._last_number, time=time, level=level, event=_truncate(event), fields=fields)
            )

    def lines(self, *, level: str = "debug", limit: int = MAX_LINES, after: int | None = None) -> list[LogEntry]:
        """Oldest first: the latest `limit` that are at least so severe, or the first that came after a number.

        A number that has not been given yet is of a server that ran before this one: then all are new.
        """
        with self._lock:
            lines, last = list(self._lines), self._last_number
        wanted = [line for line in lines if _severity(line.level) >= _severity(level)]
        if after is None:
            return wanted[-limit:]
        return [line for line in wanted if line.number > after or after > last][:limit]


def without_trace(line: Mapping[str, Any]) -> dict[str, Any]:
    """A line with only what was raised, and where in our code; the trace stays on the server's own terminal."""
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
