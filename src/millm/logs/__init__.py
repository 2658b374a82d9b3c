"""Structured logging for the console or as JSON (NFR-2.3), with redaction and a buffer of the latest lines.

The API process writes all lines; the engine forwards its own over the pipe. In JSON mode, anything else printed to
stdout or stderr, by C code or subprocesses too, is captured through a pipe and logged. Uncaught exceptions are logged.
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

RECENT_LINES = RecentLines()
"""One per process, like structlog's own configuration."""
LogFields = dict[str, Any]
ForwardLine = Callable[[str, str, str, LogFields], None]
"""(level, event, time, fields)."""
_LEADING_FIELDS = ("timestamp", "level", "event")
_COMMON_PROCESSORS: list[structlog.typing.Processor] = [
    structlog.contextvars.merge_contextvars,
    structlog.processors.add_log_level,
    structlog.processors.MaybeTimeStamper(fmt="iso", utc=True),
    structlog.processors.format_exc_info,
]
_STDOUT, _STDERR = 1, 2
_MAX_LINE_BYTES = 2**16
"""Longer lines are split."""
_JOIN_SECONDS = 1.0
"""Wait for the reader thread; a surviving subprocess may still hold the pipe."""
_ANSI_COLOURS = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


@contextmanager
def capture_output(on_line: Callable[[str], None]) -> Iterator[TextIO]:
    """Redirect stdout and stderr to `on_line`, called on its own thread; yields the original stderr for the log."""
    read_end, write_end = os.pipe()
    before = {number: os.dup(number) for number in (_STDOUT, _STDERR)}
    _redirect(dict.fromkeys(before, write_end))
    os.close(write_end)
    reader = threading.Thread(
        target=_read_lines, args=(os.fdopen(read_end, "rb"), on_line), name="millm-printed", daemon=True
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
    """Read until the pipe is closed; a progress bar's carriage returns end lines too."""
    with pipe:
        while raw := pipe.readline(_MAX_LINE_BYTES):
            for part in _ANSI_COLOURS.sub("", raw.decode("utf-8", "replace")).splitlines():
                if part.strip():
                    on_line(part.strip())


class UncaughtLogger(Protocol):
    def critical(self, event: str, **fields: Any) -> object: ...

    def error(self, event: str, **fields: Any) -> object: ...


def log_uncaught(log: UncaughtLogger) -> None:
    """Log uncaught exceptions of this process from now on, except KeyboardInterrupt."""

    def on_exception(kind: type[BaseException], raised: BaseException, trace: TracebackType | None) -> None:
        if issubclass(kind, KeyboardInterrupt):
            sys.__excepthook__(kind, raised, trace)
        else:
            log.critical("process.crashed", exc_info=(kind, raised, trace))

    def on_thread_exception(args: threading.ExceptHookArgs) -> None:
        if args.exc_type is not SystemExit and args.exc_value:
            name = args.thread.name if args.thread else None
            log.error("thread.crashed", thread=name, exc_info=(args.exc_type, args.exc_value, args.exc_traceback))

    def on_unraisable(args: Any) -> None:
        log.error("process.unraisable", text=args.err_msg, exc_info=args.exc_value)

    sys.excepthook = on_exception
    threading.excepthook = on_thread_exception
    sys.unraisablehook = on_unraisable


@contextmanager
def server_logging(settings: Settings) -> Iterator[None]:
    """Configure logging for a server; in JSON mode, other output is logged too."""
    if settings.log_format != "json":
        configure(settings)
        yield
        return
    with capture_output(_log_printed) as stderr:
        configure(settings, stderr)
        yield


def _log_printed(text: str) -> None:
    # a warning, to be shown at every usual level: the severity is unknown
    structlog.get_logger().warning("printed", text=text)


def configure(settings: Settings, stderr: TextIO | None = None) -> None:
    """Log to stderr in `settings.log_format`; `auto` is `console` on a terminal, else `json`."""
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
    """For the engine process: pass every line to `send`, and none to stderr."""

    def send_line(_: object, __: str, line: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        fields = {name: to_json_value(value) for name, value in line.items()}
        send(fields.pop("level"), fields.pop("event"), fields.pop("timestamp"), fields)
        raise structlog.DropEvent

    _configure_structlog(level, [send_line])


def write_forwarded(level: str, event: str, time: str, fields: LogFields) -> None:
    """Log a line that `forward` sent from another process."""
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
    """Passes records of Python's `logging` to structlog."""

    def emit(self, record: logging.LogRecord) -> None:
        structlog.get_logger().log(
            record.levelno, record.getMessage().strip(), logger=record.name, exc_info=record.exc_info or None
        )


def _level_number(level: str) -> int:
    return logging.getLevelNamesMapping()[level.upper()]
