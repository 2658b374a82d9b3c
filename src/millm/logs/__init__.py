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
from millm.logs.recent import Recent, without_trace
from millm.logs.redaction import PathRedaction, SecretRedaction, plain
from millm.settings import Settings

RECENT = Recent()
"""One for the process, like structlog's own configuration."""

Fields = dict[str, Any]
Send = Callable[[str, str, str, Fields], None]
"""(level, event, time, fields)."""

_FIRST = ("timestamp", "level", "event")
"""What a line begins with."""
_BEFORE: list[structlog.typing.Processor] = [
    structlog.contextvars.merge_contextvars,
    structlog.processors.add_log_level,
    structlog.processors.MaybeTimeStamper(fmt="iso", utc=True),
    structlog.processors.format_exc_info,
]


@contextmanager
def writing(settings: Settings) -> Iterator[None]:
    """As long as a server runs. In JSON, whatever anything prints beside the log is a line of it, too."""
    if settings.log_format != "json":
        configure(settings)
        yield
        return
    with printed.taken(_tell_printed) as stderr:
        configure(settings, stderr)
        yield


def _tell_printed(text: str) -> None:
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
        shown = {name: secrets.of(plain(value)) for name, value in line.items()}
        RECENT.add(paths.of(without_trace(shown)))
        return {name: shown[name] for name in _FIRST if name in shown} | shown

    _configure(settings.log_level, [remember, renderer], stderr)


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


def _configure(level: str, last: list[structlog.typing.Processor], stderr: TextIO | None = None) -> None:
    structlog.configure(
        processors=[*_BEFORE, *last],
        wrapper_class=structlog.make_filtering_bound_logger(_number(level)),
        logger_factory=structlog.PrintLoggerFactory(stderr or sys.stderr),
        cache_logger_on_first_use=False,
    )
    logging.basicConfig(handlers=[_FromLibraries()], level=logging.WARNING, force=True)
    logging.captureWarnings(True)
    uncaught.told(structlog.get_logger())


class _FromLibraries(logging.Handler):
    """What libraries warn of by Python's own logging, as lines of ours."""

    def emit(self, record: logging.LogRecord) -> None:
        structlog.get_logger().log(
            record.levelno, record.getMessage().strip(), logger=record.name, exc_info=record.exc_info or None
        )


def _number(level: str) -> int:
    return logging.getLevelNamesMapping()[level.upper()]
