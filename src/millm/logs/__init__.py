"""Structured logs with stack traces: readable on a terminal, JSON for machines (NFR-2.3); the latest also over HTTP.

One process writes: the engine's lines come to it over the pipe. No line holds a secret, and those that are told over
HTTP no path of this machine either.
"""

import logging
import sys
from collections.abc import Callable, MutableMapping
from typing import Any

import structlog

from millm.logs.recent import Recent, without_trace
from millm.logs.redaction import PathRedaction, SecretRedaction, plain
from millm.settings import Settings

RECENT = Recent()
"""One for the process, like structlog's own configuration."""

Fields = dict[str, Any]
Send = Callable[[str, str, str, Fields], None]
"""(level, event, time, fields)."""

_BEFORE: list[structlog.typing.Processor] = [
    structlog.contextvars.merge_contextvars,
    structlog.processors.add_log_level,
    structlog.processors.MaybeTimeStamper(fmt="iso", utc=True),
    structlog.processors.format_exc_info,
]


def configure(settings: Settings) -> None:
    """For the process that writes: to stderr as `settings.log_format` says, `auto` being console on a terminal."""
    as_json = settings.log_format == "json" or (settings.log_format == "auto" and not sys.stderr.isatty())
    renderer: structlog.typing.Processor = (
        structlog.processors.JSONRenderer()
        if as_json
        else structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
    )
    secrets, paths = SecretRedaction(settings.secrets), PathRedaction(settings.home_folder)

    def remember(_: object, __: str, line: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        shown = {name: secrets.of(plain(value)) for name, value in line.items()}
        RECENT.add(paths.of(without_trace(shown)))
        return shown

    _configure(settings.log_level, [remember, renderer])


def forward(level: str, send: Send) -> None:
    """For the engine's process: every line goes to `send`, and nothing to stderr."""

    def hand_over(_: object, __: str, line: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        fields = {name: plain(value) for name, value in line.items()}
        send(fields.pop("level"), fields.pop("event"), fields.pop("timestamp"), fields)
        raise structlog.DropEvent

    _configure(level, [hand_over])


def take(level: str, event: str, time: str, fields: Fields) -> None:
    """Write a line that another process has sent."""
    structlog.get_logger().log(_number(level), event, **{**fields, "timestamp": time})


def _configure(level: str, last: list[structlog.typing.Processor]) -> None:
    structlog.configure(
        processors=[*_BEFORE, *last],
        wrapper_class=structlog.make_filtering_bound_logger(_number(level)),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=False,
    )
    logging.basicConfig(handlers=[_FromLibraries()], level=logging.WARNING, force=True)


class _FromLibraries(logging.Handler):
    """What libraries warn of by Python's own logging, as lines of ours."""

    def emit(self, record: logging.LogRecord) -> None:
        structlog.get_logger().log(
            record.levelno, record.getMessage(), logger=record.name, exc_info=record.exc_info or None
        )


def _number(level: str) -> int:
    return logging.getLevelNamesMapping()[level.upper()]
