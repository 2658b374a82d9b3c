"""The process of one download, one preview or one search: an order on standard input, news on standard output.

It and what it imports alone know `huggingface_hub`. Standard input stays open: its end means that whoever ordered is
gone, and ends the process too.
"""

import contextlib
import os
import sys
import threading
import time
from functools import partial

import msgspec
from huggingface_hub import constants, get_token
from huggingface_hub.utils import logging as hub_logging

from millm.hub.ledger import ProgressTracker
from millm.hub.orders import (
    ModelSearchCommand,
    ModelSearchResult,
    PreviewResult,
    RepositoryCommand,
    WorkerEvent,
    WorkerFailure,
)
from millm.hub.patience import RetryPolicy
from millm.hub.preview import build_preview
from millm.hub.refusals import problem_from_error, search_problem_from_error
from millm.hub.searching import search_models
from millm.hub.transfer import fetch

_TICK_SECONDS = 0.2
_CHUNK = 1 << 16
"""Bytes after which what came is written; huggingface_hub's 10 MB take a slow line ten seconds."""


def main() -> None:
    hub_logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    constants.DOWNLOAD_CHUNK_SIZE = _CHUNK
    line = sys.stdin.buffer.readline()
    if not line:
        return  # who wanted to order has gone
    order = msgspec.json.decode(line, type=RepositoryCommand | ModelSearchCommand)
    threading.Thread(target=_exit_with_parent, daemon=True).start()
    _write_event(_run_search(order) if isinstance(order, ModelSearchCommand) else _run_with_progress(order))
    os._exit(0)  # without waiting for threads that still download what nobody wants any more


def _run_search(command: ModelSearchCommand) -> WorkerEvent:
    try:
        return ModelSearchResult(models=search_models(command, command.token or get_token()))
    except Exception as error:  # noqa: BLE001  as below
        return WorkerFailure(problem=search_problem_from_error(error))


def _run_with_progress(command: RepositoryCommand) -> WorkerEvent:
    ledger = ProgressTracker(command.spec)
    threading.Thread(target=_report_progress, args=(ledger,), daemon=True).start()
    return _run_command(command, ledger)


def _run_command(command: RepositoryCommand, tracker: ProgressTracker) -> WorkerEvent:
    token = command.token or get_token()
    try:
        if command.action == "fetch":
            return fetch(command, token, tracker)
        patience = RetryPolicy(command.tries, command.backoff)
        return PreviewResult(
            preview=patience.call(partial(build_preview, command, token), partial(tracker.set_wait, "preview"))
        )
    except Exception as error:  # noqa: BLE001  the edge of the process: whatever it was is told as one sentence
        return WorkerFailure(problem=problem_from_error(error, command.spec))


def _exit_with_parent() -> None:
    sys.stdin.buffer.read()
    os._exit(1)


def _report_progress(tracker: ProgressTracker) -> None:
    while True:
        _write_event(tracker.progress())
        time.sleep(_TICK_SECONDS)


_output_lock = threading.Lock()


def _write_event(event: WorkerEvent) -> None:
    with _output_lock, contextlib.suppress(BrokenPipeError):  # then nobody waits for it any more
        sys.stdout.buffer.write(msgspec.json.encode(event) + b"\n")
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
