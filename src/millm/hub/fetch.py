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

from millm.hub.ledger import Ledger
from millm.hub.orders import News, Offered, Order, Previewed, Refused, Search
from millm.hub.patience import Patience
from millm.hub.preview import preview
from millm.hub.refusals import problem, search_problem
from millm.hub.searching import search
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
    order = msgspec.json.decode(line, type=Order | Search)
    threading.Thread(target=_end_with_who_ordered, daemon=True).start()
    _tell(_found(order) if isinstance(order, Search) else _done(order))
    os._exit(0)  # without waiting for threads that still download what nobody wants any more


def _found(order: Search) -> News:
    try:
        return Offered(models=search(order, order.token or get_token()))
    except Exception as error:  # noqa: BLE001  as below
        return Refused(problem=search_problem(error))


def _done(order: Order) -> News:
    ledger = Ledger(order.asked)
    threading.Thread(target=_tell_again_and_again, args=(ledger,), daemon=True).start()
    return _obey(order, ledger)


def _obey(order: Order, ledger: Ledger) -> News:
    token = order.token or get_token()
    try:
        if order.what == "fetch":
            return fetch(order, token, ledger)
        patience = Patience(order.tries, order.backoff)
        return Previewed(preview=patience.keep_trying(partial(preview, order, token), partial(ledger.waits, "preview")))
    except Exception as error:  # noqa: BLE001  the edge of the process: whatever it was is told as one sentence
        return Refused(problem=problem(error, order.asked))


def _end_with_who_ordered() -> None:
    sys.stdin.buffer.read()
    os._exit(1)


def _tell_again_and_again(ledger: Ledger) -> None:
    while True:
        _tell(ledger.moved())
        time.sleep(_TICK_SECONDS)


_one_at_a_time = threading.Lock()


def _tell(news: News) -> None:
    with _one_at_a_time, contextlib.suppress(BrokenPipeError):  # then nobody waits for it any more
        sys.stdout.buffer.write(msgspec.json.encode(news) + b"\n")
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
