"""Files of a Hugging Face repository → the local cache, by a process of its own: ending it ends the download.

The process is `fetch.py`, which alone knows `huggingface_hub`: importing that would cost every start a quarter second.
"""

import os
import select
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import msgspec

from millm.errors import DownloadFailed

OnProgress = Callable[[str, int, int], None]

_TICK_SECONDS = 0.2
"""How often `on_progress` is called while nothing arrives, so that it can raise to give up."""


class Wanted(msgspec.Struct, frozen=True):
    """Files of a repository by their names' patterns."""

    repository: str
    patterns: tuple[str, ...]
    but_not: tuple[str, ...] = ()


class Order(msgspec.Struct, frozen=True):
    """What the process reads: on its standard input, where nobody else sees the token."""

    wanted: Wanted
    token: str | None


class News(msgspec.Struct, frozen=True):
    """What it writes, a line each: bytes so far and in all; at last the snapshot's folder, or what went wrong."""

    done: int = 0
    total: int = 0
    folder: str | None = None
    problem: str | None = None


def download(wanted: Wanted, token: str | None, on_progress: OnProgress) -> Path:
    """The snapshot's folder, from the cache alone where the hub cannot be reached. Raises DownloadFailed."""
    with subprocess.Popen(
        [sys.executable, "-P", "-m", "millm.hub.fetch"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        process_group=0,  # so that Ctrl+C is ours alone to handle
    ) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        try:
            child.stdin.write(msgspec.json.encode(Order(wanted, token)))
            child.stdin.close()
            return _follow(_told(child.stdout), wanted.repository, on_progress)
        finally:
            child.kill()


def _follow(told: Iterator[News], repository: str, on_progress: OnProgress) -> Path:
    for news in told:
        if news.problem:
            raise DownloadFailed(f"{repository}: {news.problem}")
        if news.folder:
            return Path(news.folder)
        on_progress(f"downloading {repository}", news.done, news.total)
    raise DownloadFailed(f"{repository}: the download was ended from outside; start again, it goes on where it was")


def _told(pipe: IO[bytes]) -> Iterator[News]:
    """Each line as it comes; the last one again for every tick without one."""
    rest, latest = b"", News()
    while True:
        if not select.select([pipe], [], [], _TICK_SECONDS)[0]:
            yield latest
        elif data := os.read(pipe.fileno(), 65536):
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                latest = msgspec.json.decode(line, type=News)
                yield latest
        else:
            return
