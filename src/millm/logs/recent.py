"""The latest log lines of the server and of its engine, numbered, for whoever looks at them over HTTP."""

import logging
import re
import threading
from collections import deque
from collections.abc import Mapping
from typing import Any

import msgspec

KEPT = 2000
_LONGEST = 2000
"""Characters of one text."""

_OUR_FRAME = re.compile(r'File "[^"]*?(millm/[^"]+)", line (\d+)')


class Line(msgspec.Struct, frozen=True, kw_only=True):
    number: int
    """Counts from 1 since the server started."""
    time: str
    """ISO 8601, UTC."""
    level: str
    """`debug`, `info`, `warning`, `error` or `critical`."""
    event: str
    fields: dict[str, Any]


class Recent:
    """Added to from any thread."""

    def __init__(self) -> None:
        self._lines: deque[Line] = deque(maxlen=KEPT)
        self._last = 0
        self._adding = threading.Lock()

    def add(self, told: Mapping[str, Any]) -> None:
        """What structlog has of a line, as plain values."""
        fields = {name: _short(value) for name, value in told.items() if name not in ("timestamp", "level", "event")}
        time, level, event = (str(told.get(name, "")) for name in ("timestamp", "level", "event"))
        with self._adding:
            self._last += 1
            self._lines.append(Line(number=self._last, time=time, level=level, event=_short(event), fields=fields))

    def lines(self, *, level: str = "debug", limit: int = KEPT, after: int | None = None) -> list[Line]:
        """Oldest first: the latest `limit` that are at least so severe, or the first that came after a number.

        A number that has not been given yet is of a server that ran before this one: then all are new.
        """
        with self._adding:
            lines, last = list(self._lines), self._last
        wanted = [line for line in lines if _severity(line.level) >= _severity(level)]
        if after is None:
            return wanted[-limit:]
        return [line for line in wanted if line.number > after or after > last][:limit]


def without_trace(told: Mapping[str, Any]) -> dict[str, Any]:
    """A line with only what was raised, and where in our code; the trace stays on the server's own terminal."""
    return {**told, "exception": _raised(str(told["exception"]))} if "exception" in told else dict(told)


def _severity(level: str) -> int:
    return logging.getLevelNamesMapping().get(level.upper(), logging.NOTSET)


def _short(value: Any) -> Any:
    return f"{value[:_LONGEST]}…" if isinstance(value, str) and len(value) > _LONGEST else value


def _raised(trace: str) -> str:
    """`ValueError: what was wrong (millm/hub/library.py:31)`."""
    flush_left = [line for line in trace.splitlines() if line and not line[0].isspace()]
    frames = _OUR_FRAME.findall(trace)
    where = f" ({frames[-1][0]}:{frames[-1][1]})" if frames else ""
    return (flush_left[-1] if flush_left else "")[:_LONGEST] + where
