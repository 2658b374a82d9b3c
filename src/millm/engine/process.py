"""Entry point of the engine process, the only one that imports torch; it ends when the API process does."""

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

NICE = 5  # The API process has priority, so that health checks respond while the engine uses every core
LOG_LINE_TIMEOUT_SECONDS = 1.0  # A log line that cannot be sent for this long is dropped


def main(connection: Connection, log_level: str, step_seconds: float) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # on Ctrl+C the API process closes the pipe
    os.environ["HF_HUB_OFFLINE"] = "1"  # only the API process downloads files
    os.nice(NICE)
    sender = EventSender(connection)
    logs.forward(log_level, sender.send_log_line)
    inbox: SimpleQueue[Any] = SimpleQueue()
    threading.Thread(target=_read_commands, args=(connection, inbox), daemon=True).start()
    # The one import inside a function: the API process imports this module to spawn it and must stay free of torch.
    from millm.engine.core import EngineCore  # noqa: PLC0415

    try:
        EngineCore(inbox, sender, Watchdog(step_seconds)).run()
    except Exception as error:  # outermost frame of the process: multiprocessing would print the trace
        log.critical("engine.crashed", exc_info=True)
        raise SystemExit(1) from error


def _read_commands(connection: Connection, inbox: SimpleQueue[Any]) -> None:
    """Drain the pipe, so that the API process never blocks on a send; exit when the pipe closes."""
    try:
        while True:
            inbox.put(decode_commands(connection.recv_bytes()))
    except (EOFError, OSError):
        os._exit(0)


class EventSender:
    """Sends events and log lines, from any thread."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._send_lock = threading.Lock()

    def __call__(self, events: list[EngineEvent]) -> None:
        with self._send_lock:
            self._send(events)

    def send_log_line(self, level: str, event: str, time: str, fields: dict[str, Any]) -> None:
        if self._send_lock.acquire(timeout=LOG_LINE_TIMEOUT_SECONDS):  # the watchdog logs too, and must not hang
            try:
                self._send([LogLine(level=level, event=event, time=time, fields=fields)])
            finally:
                self._send_lock.release()

    def _send(self, events: list[EngineEvent]) -> None:
        try:
            self._connection.send_bytes(encode(events))
        except (BrokenPipeError, OSError):
            os._exit(0)
