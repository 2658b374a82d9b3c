"""The engine process: it alone imports torch. Started with `spawn`, it ends when the API process does."""

import os
import signal
import threading
from multiprocessing.connection import Connection
from queue import SimpleQueue
from typing import Any

from millm import logs
from millm.engine.messages import Event, decode_commands, encode
from millm.engine.watchdog import Watchdog

NICE = 5
"""The doors come first: where the engine takes every core, a health check still answers at once."""


def main(connection: Connection, log_level: str, log_format: str, step_seconds: float) -> None:
    """Entry point of the child. Ctrl+C is the API process's to handle: it closes the pipe."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ["HF_HUB_OFFLINE"] = "1"  # files are the API process's business: nothing is fetched from here
    os.nice(NICE)
    logs.configure(log_level, log_format)
    inbox: SimpleQueue[Any] = SimpleQueue()
    threading.Thread(target=_read, args=(connection, inbox), daemon=True).start()
    # The one import inside a function: the API process imports this module to spawn it and must stay free of torch.
    from millm.engine.loop import Engine  # noqa: PLC0415

    Engine(inbox, lambda events: _post(connection, events), Watchdog(step_seconds)).run()


def _read(connection: Connection, inbox: SimpleQueue[Any]) -> None:
    """Always draining, so that the API process never waits to send; a closed pipe ends the process at once."""
    try:
        while True:
            inbox.put(decode_commands(connection.recv_bytes()))
    except (EOFError, OSError):
        os._exit(0)


def _post(connection: Connection, events: list[Event]) -> None:
    try:
        connection.send_bytes(encode(events))
    except (BrokenPipeError, OSError):
        os._exit(0)
