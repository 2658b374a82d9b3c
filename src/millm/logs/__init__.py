"""Structured logs with stack traces: readable on a terminal, JSON for machines (NFR-2.3); the latest also over HTTP.

One process writes: the engine's lines come to it over the pipe. No line holds a secret, and those that are told over
HTTP no path of this machine either.
"""

import logging
import sys
from collections.abc import Callable, Iterator, MutableMapping
from contextlib import contextmanager
from typing import Any, TextIO

import structlog

from millm.logs import printed, uncaught
from millm.logs.recent import RecentLines, without_trace
from millm.logs.redaction import PathRedaction, SecretRedaction, to_json_value
from millm.settings import Settings

RECENT_LINES = RecentLines()
"""One for the process, like structlog's own configuration."""

LogFields = dict[str, Any]
ForwardLine = Callable[[str, str, str, LogFields], None]
"""(level, event, time, fields)."""

_LEADING_FIELDS = ("timestamp", "level", "event")
"""What a line begins with."""
_COMMON_PROCESSORS: list[structlog.typing.Processor] = [
    structlog.contextvars.merge_contextvars,
    structlog.processors.add_log_level,
    structlog.processors.MaybeTimeStamper(fmt="iso", utc=True),
    structlog.processors.format_exc_info,
]


@contextmanager
def server_logging(settings: Settings) -> Iterator[None]:
    """As long as a server runs. In JSON, whatever anything prints beside the log is a line of it, too."""
    if settings.log_format != "json":
        configure(settings)
        yield
        return
    with printed.capture_output(_log_printed) as stderr:
        configure(settings, stderr)
        yield


def _log_printed(text: str) -> None:
    """At a level that is always shown: nobody knows what it is."""
    structlog.get_logger().warning("printed", text=text)


def configure(settings: Settings, stderr: TextIO | None = None) -> None:
    """For the process that writes: to stderr as `settings.log_format` says, `auto` being console on a terminal."""
    as_json = settings.log_format == "json" or (settings.log_format == "auto" and not sys.stderr.isatty())
    renderer: structlog.typing.Processor = (
        structlog.processors.JSONRenderer()
        if as_json
        else structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
    )
    secrets, paths = SecretRedaction(settings.secrets), PathRedaction(settings.home_folder)

    def remember(_: object, __: str, line: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        shown = {name: secrets.redact(to_json_value(value)) for name, value in line.items()}
        RECENT_LINES.add(paths.redact(without_trace(shown)))
        return {name: shown[name] for name in _LEADING_FIELDS if name in shown} | shown

    _configure_structlog(settings.log_level, [remember, renderer], stderr)


def forward(level: str, send: ForwardLine) -> None:
    """For the engine's process: every line goes to `send`, and nothing to stderr."""

    def hand_over(_: object, __: str, line: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        fields = {name: to_json_value(value) for name, value in line.items()}
        send(fields.pop("level"), fields.pop("event"), fields.pop("timestamp"), fields)
        raise structlog.DropEvent

    _configure_structlog(level, [hand_over])


def write_forwarded(level: str, event: str, time: str, fields: LogFields) -> None:
    """Write a line that another process has sent."""
    structlog.get_logger().log(_level_number(level), event, **{**fields, "timestamp": time})


def _configure_structlog(
    level: str, final_processors: list[structlog.typing.Processor], stderr: TextIO | None = None
) -> None:
    structlog.configure(
        processors=[*_COMMON_PROCESSORS, *final_processors],
        wrapper_class=structlog.make_filtering_bound_logger(_level_number(level)),
        logger_factory=structlog.PrintLoggerFactory(stderr or sys.stderr),
        cache_logger_on_first_use=False,
    )
    logging.basicConfig(handlers=[_LibraryHandler()], level=logging.WARNING, force=True)
    logging.captureWarnings(True)
    uncaught.log_uncaught(structlog.get_logger())


class _LibraryHandler(logging.Handler):
    """What libraries warn of by Python's own logging, as lines of ours."""

    def emit(self, record: logging.LogRecord) -> None:
        structlog.get_logger().log(
            record.levelno, record.getMessage().strip(), logger=record.name, exc_info=record.exc_info or None
        )


def _level_number(level: str) -> int:
    return logging.getLevelNamesMapping()[level.upper()]
