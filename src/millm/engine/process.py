"""The engine process: it alone imports torch. Started with `spawn`, it ends when the API process does."""

import os
import signal
import threading
from multiprocessing.connection import Connection
from queue import SimpleQueue
from typing import Any

import structlog

from millm import logs
from millm.engine.messages import EngineEvent, LogLine, decode_commands, encode
from millm.engine.watchdog import Watchdog

log = structlog.get_logger()

NICE = 5
"""The doors come first: where the engine takes every core, a health check still answers at once."""
LOG_LINE_TIMEOUT_SECONDS = 1.0
"""A line for the log waits no longer to be sent."""


def main(connection: Connection, log_level: str, step_seconds: float) -> None:
    """Entry point of the child. Ctrl+C is the API process's to handle: it closes the pipe."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ["HF_HUB_OFFLINE"] = "1"  # files are the API process's business: nothing is fetched from here
    os.nice(NICE)
    post = EventSender(connection)
    logs.forward(log_level, post.send_log_line)
    inbox: SimpleQueue[Any] = SimpleQueue()
    threading.Thread(target=_read_commands, args=(connection, inbox), daemon=True).start()
    # The one import inside a function: the API process imports this module to spawn it and must stay free of torch.
    from millm.engine.core import EngineCore  # noqa: PLC0415

    try:
        EngineCore(inbox, post, Watchdog(step_seconds)).run()
    except Exception as error:  # the process's edge: multiprocessing would print the trace
        log.critical("engine.crashed", exc_info=True)
        raise SystemExit(1) from error


def _read_commands(connection: Connection, inbox: SimpleQueue[Any]) -> None:
    """Always draining, so that the API process never waits to send; a closed pipe ends the process at once."""
    try:
        while True:
            inbox.put(decode_commands(connection.recv_bytes()))
    except (EOFError, OSError):
        os._exit(0)


class EventSender:
    """The way out, for the engine's thread and for whichever thread has a line for the log."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._send_lock = threading.Lock()

    def __call__(self, events: list[EngineEvent]) -> None:
        with self._send_lock:
            self._send(events)

    def send_log_line(self, level: str, event: str, time: str, fields: dict[str, Any]) -> None:
        """Lost where the way is blocked for so long: the watchdog, which tells of that, must not hang too."""
        if self._send_lock.acquire(timeout=LOG_LINE_TIMEOUT_SECONDS):
            try:
                self._send([LogLine(level=level, event=event, time=time, fields=fields)])
            finally:
                self._send_lock.release()

    def _send(self, events: list[EngineEvent]) -> None:
        try:
            self._connection.send_bytes(encode(events))
        except (BrokenPipeError, OSError):
            os._exit(0)
