"""Starts the process that downloads, tells what it tells, and ends it with whoever listens."""

import os
import sys
from asyncio.subprocess import PIPE, create_subprocess_exec
from collections.abc import AsyncGenerator
from typing import Literal

import msgspec

from millm.hub.cache_folder import cache_folder
from millm.hub.jobs import Asked
from millm.hub.orders import News, Order, Search, patterns
from millm.settings import Settings

_LONGEST_LINE = 1 << 26
"""A preview names every file."""
_TOKENS = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")
"""They go with the order alone."""

_decode = msgspec.json.Decoder(News).decode


def order_of(what: Literal["fetch", "preview"], asked: Asked, settings: Settings) -> Order:
    wanted, but_not = patterns(asked, settings.trust_remote_code)
    return Order(
        what=what,
        asked=asked,
        patterns=wanted,
        but_not=but_not,
        token=_token(settings),
        reserve=settings.download_reserve_bytes,
        backoff=settings.download_backoff,
    )


def search_of(words: str, limit: int, settings: Settings) -> Search:
    return Search(words=words, limit=limit, token=_token(settings))


def _token(settings: Settings) -> str | None:
    return settings.hf_token.get_secret_value() if settings.hf_token else None


async def obey(order: Order | Search) -> AsyncGenerator[News, None]:
    """News as they come, the last of which is no `Moved`; nothing more if the process is ended from outside.

    Use it in `aclosing`: the process, and with it the download, is ended at once.
    """
    child = await create_subprocess_exec(
        *(sys.executable, "-P", "-m", "millm.hub.fetch"),
        stdin=PIPE,
        stdout=PIPE,
        limit=_LONGEST_LINE,
        env=_environment(),
        process_group=0,  # so that Ctrl+C is ours alone to handle
    )
    assert child.stdin is not None
    assert child.stdout is not None
    try:
        child.stdin.write(msgspec.json.encode(order) + b"\n")
        async for line in child.stdout:
            yield _decode(line)
    finally:
        if child.returncode is None:
            child.kill()
        child.stdin.close()
        await child.stdout.read()
        await child.wait()


def _environment() -> dict[str, str]:
    """Whatever else huggingface_hub honours; without its own faster protocol, whose files it alone could check."""
    kept = {name: value for name, value in os.environ.items() if name not in _TOKENS}
    ours = {
        "HF_HUB_CACHE": str(cache_folder()),
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    }
    return {**kept, **ours}
