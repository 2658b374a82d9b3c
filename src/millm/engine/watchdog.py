"""Ends the engine process when a step hangs; the API process then restarts it."""

import faulthandler
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import structlog

log = structlog.get_logger()

EXIT_CODE = 70


class Watchdog:
    def __init__(self, limit_seconds: float) -> None:
        self._limit = limit_seconds
        self._since: float | None = None
        threading.Thread(target=self._watch, name="millm-watchdog", daemon=True).start()

    @contextmanager
    def step(self) -> Iterator[None]:
        self._since = time.monotonic()
        try:
            yield
        finally:
            self._since = None

    def _watch(self) -> None:
        while True:
            time.sleep(min(self._limit / 10, 1.0))
            since = self._since
            if since is not None and time.monotonic() - since > self._limit:
                log.error("engine.hangs", seconds=self._limit)
                faulthandler.dump_traceback()
                os._exit(EXIT_CODE)
