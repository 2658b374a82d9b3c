"""What nobody caught, told in the log instead of on stderr: with Python's own hooks for that."""

import sys
import threading
from types import TracebackType
from typing import Any, Protocol


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
