"""The process that downloads, run by `download.py`: an order on standard input, news on standard output.

`huggingface_hub` does metadata, authorisation, resuming and bytes.
"""

import contextlib
import errno
import io
import sys
import threading
from collections.abc import Callable
from typing import Any

import msgspec
from huggingface_hub import constants, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
)
from huggingface_hub.utils import logging as hub_logging
from tqdm.auto import tqdm  # type: ignore[import-untyped]  # ships with huggingface_hub, without types

from millm.hub.download import News, Order


def main() -> None:
    hub_logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    order = msgspec.json.decode(sys.stdin.buffer.read(), type=Order)
    one_at_a_time = threading.Lock()  # huggingface_hub downloads several files at once, each in a thread

    def tell(news: News) -> None:
        with one_at_a_time:
            sys.stdout.buffer.write(msgspec.json.encode(news) + b"\n")
            sys.stdout.buffer.flush()

    with contextlib.suppress(BrokenPipeError):  # then nobody waits for it any more
        tell(_fetch(order, lambda done, total: tell(News(done, total))))


def _fetch(order: Order, on_bytes: Callable[[int, int], None]) -> News:
    try:
        folder = snapshot_download(
            order.wanted.repository,
            allow_patterns=list(order.wanted.patterns),
            ignore_patterns=list(order.wanted.but_not),
            token=order.token,
            tqdm_class=_bars(on_bytes),
        )
    except LocalEntryNotFoundError as error:
        return News(problem=_problem(error.__cause__ or error))
    except Exception as error:  # noqa: BLE001  the edge of the process: whatever it was is told as one sentence
        return News(problem=_problem(error))
    return News(folder=folder)


def _problem(error: BaseException) -> str:
    """What is wrong and the way out. `error` may come from any of the libraries below `huggingface_hub`."""
    match error:
        case GatedRepoError():
            return "gated; accept its licence on its page at https://huggingface.co and set HF_TOKEN to your token"
        case HfHubHTTPError(response=object(status_code=401 | 403)) if _sent_token(error):
            return "Hugging Face does not accept this HF_TOKEN; make a new one, or unset it for a public repository"
        case RepositoryNotFoundError() | HFValidationError() | HfHubHTTPError(response=object(status_code=401)):
            return "neither a folder here nor a repository on Hugging Face (or a private one; set HF_TOKEN then)"
        case OfflineModeIsEnabled():
            return "not in the local cache, and HF_HUB_OFFLINE forbids to download it; unset it, or give a folder"
        case OSError(errno=errno.ENOSPC):
            return f"the disk is full; make room in {constants.HF_HUB_CACHE}, or set HF_HOME to a folder elsewhere"
    return (
        f"could not be downloaded from {constants.ENDPOINT} ({_kind(error)}) and is not whole in the local cache; "
        "check the network and HF_ENDPOINT, or give a local folder"
    )


def _sent_token(error: HfHubHTTPError) -> bool:
    return "authorization" in error.response.request.headers


def _kind(error: BaseException) -> str:
    return f"status {error.response.status_code}" if isinstance(error, HfHubHTTPError) else type(error).__name__


def _bars(on_bytes: Callable[[int, int], None]) -> type[Any]:
    """A tqdm class that reports bytes to `on_bytes` and draws nothing."""
    counting_bytes: list[Any] = []

    class Reported(tqdm):  # type: ignore[misc]  # tqdm is untyped
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **{**kwargs, "disable": False, "file": io.StringIO()})
            if kwargs.get("unit") == "B":
                counting_bytes.append(self)

        def update(self, n: float | None = 1) -> None:
            super().update(n)
            # huggingface_hub counts what came over the network first and what is on disk last
            if counting_bytes and self is counting_bytes[-1] and self.total:
                on_bytes(int(self.n), int(self.total))

    return Reported


if __name__ == "__main__":
    main()
