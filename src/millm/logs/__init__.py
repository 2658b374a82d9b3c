"""Structured logs with stack traces: readable on a terminal, JSON for machines (NFR-2.3); the latest also over HTTP.

One process writes: the engine's lines come to it over the pipe. No line holds a secret, and those that are told over
HTTP no path of this machine either.

What is printed past the log, by C code, by a library or by a process that was started, as lines of the log.

The file descriptors themselves are led into a pipe: nothing that writes to them has to know of it.

What nobody caught, told in the log instead of on stderr: with Python's own hooks for that.
"""

import logging
import os
import re
import sys
import threading
from collections.abc import Callable, Iterator, MutableMapping
from contextlib import contextmanager
from types import TracebackType
from typing import Any, BinaryIO, Protocol, TextIO

import structlog

from millm.logs.recent import RecentLines, without_trace
from millm.logs.redaction import PathRedaction, SecretRedaction, to_json_value
from millm.settings import Settings

_STDOUT, _STDERR = 1, 2
_MAX_LINE_BYTES = 2**16
"""Bytes of a line; what is longer becomes several."""
_JOIN_SECONDS = 1.0
"""For a process that outlives this one and still holds the pipe."""
_ANSI_COLOURS = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


@contextmanager
def capture_output(on_line: Callable[[str], None]) -> Iterator[TextIO]:
    """→ where stderr led before: the way out for the log itself. `tell` is called on a thread of its own."""
    reading, writing = os.pipe()
    before = {number: os.dup(number) for number in (_STDOUT, _STDERR)}
    _redirect(dict.fromkeys(before, writing))
    os.close(writing)
    reader = threading.Thread(
        target=_read_lines, args=(os.fdopen(reading, "rb"), on_line), name="millm-printed", daemon=True
    )
    reader.start()
    try:
        yield os.fdopen(before[_STDERR], "w", encoding="utf-8", buffering=1, closefd=False)
    finally:
        _redirect(before)
        reader.join(_JOIN_SECONDS)


def _redirect(targets: dict[int, int]) -> None:
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    for number, target in targets.items():
        os.dup2(target, number)


def _read_lines(pipe: BinaryIO, on_line: Callable[[str], None]) -> None:
    """Until nobody can write any more. A progress bar's returns end lines, too."""
    with pipe:
        while raw := pipe.readline(_MAX_LINE_BYTES):
            for part in _ANSI_COLOURS.sub("", raw.decode("utf-8", "replace")).splitlines():
                if part.strip():
                    on_line(part.strip())


class UncaughtLogger(Protocol):
    def critical(self, event: str, **fields: Any) -> object: ...

    def error(self, event: str, **fields: Any) -> object: ...


def log_uncaught(log: UncaughtLogger) -> None:
    """From here on, in this process. Ctrl+C stays what it is."""

    def of_process(kind: type[BaseException], raised: BaseException, trace: TracebackType | None) -> None:
        if issubclass(kind, KeyboardInterrupt):
            sys.__excepthook__(kind, raised, trace)
        else:
            log.critical("process.crashed", exc_info=(kind, raised, trace))

    def of_thread(failed: threading.ExceptHookArgs) -> None:
        if failed.exc_type is not SystemExit and failed.exc_value:
            name = failed.thread.name if failed.thread else None
            log.error("thread.crashed", thread=name, exc_info=(failed.exc_type, failed.exc_value, failed.exc_traceback))

    def of_nobody(failed: Any) -> None:
        log.error("process.unraisable", text=failed.err_msg, exc_info=failed.exc_value)

    sys.excepthook = of_process
    threading.excepthook = of_thread
    sys.unraisablehook = of_nobody


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
    with capture_output(_log_printed) as stderr:
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
    log_uncaught(structlog.get_logger())


class _LibraryHandler(logging.Handler):
    """What libraries warn of by Python's own logging, as lines of ours."""

    def emit(self, record: logging.LogRecord) -> None:
        structlog.get_logger().log(
            record.levelno, record.getMessage().strip(), logger=record.name, exc_info=record.exc_info or None
        )


def _level_number(level: str) -> int:
    return logging.getLevelNamesMapping()[level.upper()]
