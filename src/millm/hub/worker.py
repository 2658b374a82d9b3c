"""Starts the process that downloads, tells what it tells, and ends it with whoever listens."""

import os
import sys
from asyncio.subprocess import PIPE, create_subprocess_exec
from collections.abc import AsyncGenerator
from typing import Literal

import msgspec

from millm.hub.jobs import DownloadSpec
from millm.hub.orders import ModelSearchCommand, RepositoryCommand, WorkerEvent, file_patterns
from millm.settings import Settings, hf_cache_folder

_MAX_LINE_BYTES = 1 << 26
"""A preview names every file."""
_TOKEN_VARIABLES = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")
"""They go with the order alone."""

_decode = msgspec.json.Decoder(WorkerEvent).decode


def build_command(action: Literal["fetch", "preview"], spec: DownloadSpec, settings: Settings) -> RepositoryCommand:
    wanted, but_not = file_patterns(spec, settings.trust_remote_code)
    return RepositoryCommand(
        action=action,
        spec=spec,
        allow_patterns=wanted,
        ignore_patterns=but_not,
        token=_token(settings),
        disk_reserve=settings.download_reserve_bytes,
        backoff=settings.download_backoff,
    )


def build_search_command(words: str, limit: int, settings: Settings) -> ModelSearchCommand:
    return ModelSearchCommand(words=words, limit=limit, token=_token(settings))


def _token(settings: Settings) -> str | None:
    return settings.hf_token.get_secret_value() if settings.hf_token else None


async def run_worker(command: RepositoryCommand | ModelSearchCommand) -> AsyncGenerator[WorkerEvent, None]:
    """News as they come, the last of which is no `Moved`; nothing more if the process is ended from outside.

    Use it in `aclosing`: the process, and with it the download, is ended at once.
    """
    child = await create_subprocess_exec(
        *(sys.executable, "-P", "-m", "millm.hub.fetch"),
        stdin=PIPE,
        stdout=PIPE,
        limit=_MAX_LINE_BYTES,
        env=_worker_environment(),
        process_group=0,  # so that Ctrl+C is ours alone to handle
    )
    assert child.stdin is not None
    assert child.stdout is not None
    try:
        child.stdin.write(msgspec.json.encode(command) + b"\n")
        async for line in child.stdout:
            yield _decode(line)
    finally:
        if child.returncode is None:
            child.kill()
        child.stdin.close()
        await child.stdout.read()
        await child.wait()


def _worker_environment() -> dict[str, str]:
    """Whatever else huggingface_hub honours; without its own faster protocol, whose files it alone could check."""
    kept = {name: value for name, value in os.environ.items() if name not in _TOKEN_VARIABLES}
    ours = {
        "HF_HUB_CACHE": str(hf_cache_folder()),
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    }
    return {**kept, **ours}
