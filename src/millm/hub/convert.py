"""An SAE of another library → one that is read like any other, by a process of its own that is given no secret.

The copy is kept in MILLM_HOME under a name made of what it was made of: whole, or not there.
"""

import asyncio
import contextlib
import hashlib
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import msgspec

from millm.errors import InvalidSae
from millm.hardware import free_memory
from millm.hub import registry
from millm.hub.folders import publish
from millm.hub.foreign import Recognised, recognise
from millm.hub.home import Home
from millm.hub.jobs import Asked
from millm.sae.foreign.order import News, Order

OnStage = Callable[[str], None]
"""Called on the event loop with `reading`, `writing`, `checking`."""

SECONDS = 1800.0
_VERSION = 1
"""Of what the conversion makes; a higher one makes everything again."""
_DEEPEST = 3
_SECRET = re.compile(r"TOKEN|SECRET|PASSW|CREDENTIAL|(?:API|ADMIN|ACCESS|PRIVATE)_?KEY", re.IGNORECASE)
_OVERRIDE = "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"


def needs_conversion(source: Path) -> str | None:
    """The other library's layout, by names alone; None where a folder or file is read as it is, or is no SAE."""
    found = look(source)
    return found.format if found else None


def converted(source: Path, name: str, home: Home) -> Path | None:
    """Where the copy is, if it has been made; `name` as in `convert`."""
    found = look(source)
    folder = _target(source, found, name, home) if found else None
    return folder if folder is not None and folder.is_dir() else None


async def convert(
    source: Path, asked: Asked, home: Home, on_stage: OnStage, *, seconds: float = SECONDS, memory: int | None = None
) -> Path:
    """The folder of the copy, made now unless it is there. Cancelling ends the process, and leaves nothing.

    `source`: a folder, or the file that is the SAE. `memory`: bytes that the process may hold; None: what is free.
    Raises InvalidSae.
    """
    found = look(source)
    if found is None:
        raise InvalidSae(f"{asked.name} is no SAE of a format that can be converted")
    loop = asyncio.get_running_loop()

    def tell(stage: str) -> None:
        loop.call_soon_threadsafe(on_stage, stage)

    limit = free_memory("cpu") if memory is None else memory
    work = _Conversion(order(source, found, asked, limit), seconds, tell)
    thread = asyncio.ensure_future(asyncio.to_thread(publish, _target(source, found, asked.name, home), work.run))
    try:
        return await asyncio.shield(thread)
    except asyncio.CancelledError:
        work.kill()
        await asyncio.gather(thread, return_exceptions=True)
        raise


class _Conversion:
    """One run of the process: `run` in a thread, `kill` from anywhere."""

    def __init__(self, order: Order, seconds: float, on_stage: OnStage) -> None:
        self._order, self._seconds, self._on_stage = order, seconds, on_stage
        self._child: subprocess.Popen[bytes] | None = None
        self._is_over = threading.Event()

    def run(self, folder: Path) -> None:
        """Fills `folder`. Raises InvalidSae."""
        order = msgspec.structs.replace(self._order, target=str(folder))
        with subprocess.Popen(
            [sys.executable, "-P", "-m", "millm.sae.convert"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment(),
            process_group=0,
        ) as child:
            timer = threading.Timer(self._seconds, child.kill)
            timer.start()
            self._child = child
            try:
                if self._is_over.is_set():
                    child.kill()
                self._follow(child, msgspec.json.encode(order))
            finally:
                timer.cancel()
                child.kill()

    def kill(self) -> None:
        self._is_over.set()
        if self._child is not None:
            self._child.kill()

    def _follow(self, child: "subprocess.Popen[bytes]", order: bytes) -> None:
        assert child.stdin is not None
        assert child.stdout is not None
        with contextlib.suppress(BrokenPipeError):  # it has ended already: what it told, if anything, is read below
            child.stdin.write(order)
            child.stdin.close()
        for line in child.stdout:
            news = msgspec.json.decode(line, type=News)
            if news.problem:
                raise InvalidSae(f"{self._order.name}: {news.problem}")
            if not news.stage:
                return
            self._on_stage(news.stage)
        raise InvalidSae(
            f"{self._order.name} could not be converted: it took more than {self._seconds:.0f} s or more memory than"
            " there is; convert it on a larger machine, and import the folder"
        )


def environment() -> dict[str, str]:
    """Ours without what opens doors, and without the variable that lets a pickle run; nothing is fetched."""
    kept = {name: value for name, value in os.environ.items() if name != _OVERRIDE and not _SECRET.search(name)}
    return {**kept, "HF_HUB_OFFLINE": "1"}


def look(source: Path) -> Recognised | None:
    """What a folder or a file is, by names alone."""
    if source.is_file():
        return recognise(source.name, _names(source.parent, 1))
    return recognise("", _names(source, _DEEPEST))


def _names(folder: Path, deepest: int) -> set[str]:
    """Files in the folder and those below it, so many levels down."""
    patterns = ["/".join("*" * level) for level in range(1, deepest + 1)]
    return {
        path.relative_to(folder).as_posix() for pattern in patterns for path in folder.glob(pattern) if path.is_file()
    }


def order(source: Path, found: Recognised, asked: Asked, memory: int | None = None) -> Order:
    """All but where to write it."""
    known = registry.find(asked.name)
    return Order(
        format=found.format,
        source=str(_folder(source)),
        files=found.files,
        target="",
        name=asked.name,
        model=known.model if known else None,
        input_scale=registry.input_scale(asked.name),
        memory_limit=memory,
    )


def _folder(source: Path) -> Path:
    return source.parent if source.is_file() else source


def _target(source: Path, found: Recognised, name: str, home: Home) -> Path:
    """Named by what it is made of: in a cache of Hugging Face's, a file's link is named by its content."""
    files = [_folder(source) / file for file in found.files]
    made_of = [(file.resolve().name, file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    key = hashlib.sha256(msgspec.json.encode((_VERSION, found.format, name, made_of))).hexdigest()[:24]
    return home.converted / key
