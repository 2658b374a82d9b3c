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
from millm.hub import catalog
from millm.hub.home import Home, publish
from millm.hub.jobs import DownloadSpec
from millm.hub.sae_layout import ForeignSaeFiles, detect_foreign_sae
from millm.sae.conversion.protocol import ConversionEvent, ConversionRequest

OnStage = Callable[[str], None]
"""Called on the event loop with `reading`, `writing`, `checking`."""
TIMEOUT_SECONDS = 1800.0
_CONVERTER_VERSION = 1
"""Of what the conversion makes; a higher one makes everything again."""
_MAX_DEPTH = 3
_SECRET = re.compile(r"TOKEN|SECRET|PASSW|CREDENTIAL|(?:API|ADMIN|ACCESS|PRIVATE)_?KEY", re.IGNORECASE)
_UNSAFE_LOAD_VARIABLE = "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"


def foreign_layout(source: Path) -> str | None:
    """The other library's layout, by names alone; None where a folder or file is read as it is, or is no SAE."""
    found = inspect_source(source)
    return found.format if found else None


def find_converted(source: Path, name: str, home: Home) -> Path | None:
    """Where the copy is, if it has been made; `name` as in `convert`."""
    found = inspect_source(source)
    folder = _target_folder(source, found, name, home) if found else None
    return folder if folder is not None and folder.is_dir() else None


async def convert_sae(
    source: Path,
    spec: DownloadSpec,
    home: Home,
    on_stage: OnStage,
    *,
    timeout_seconds: float = TIMEOUT_SECONDS,
    memory_limit: int | None = None,
) -> Path:
    """The folder of the copy, made now unless it is there. Cancelling ends the process, and leaves nothing.

    `source`: a folder, or the file that is the SAE. `memory`: bytes that the process may hold; None: what is free.
    Raises InvalidSae.
    """
    found = inspect_source(source)
    if found is None:
        raise InvalidSae(f"{spec.name} is no SAE of a format that can be converted")
    loop = asyncio.get_running_loop()

    def tell(stage: str) -> None:
        loop.call_soon_threadsafe(on_stage, stage)

    limit = free_memory("cpu") if memory_limit is None else memory_limit
    work = _ConversionProcess(build_conversion_request(source, found, spec, limit), timeout_seconds, tell)
    thread = asyncio.ensure_future(asyncio.to_thread(publish, _target_folder(source, found, spec.name, home), work.run))
    try:
        return await asyncio.shield(thread)
    except asyncio.CancelledError:
        work.kill()
        await asyncio.gather(thread, return_exceptions=True)
        raise


class _ConversionProcess:
    """One run of the process: `run` in a thread, `kill` from anywhere."""

    def __init__(self, request: ConversionRequest, timeout_seconds: float, on_stage: OnStage) -> None:
        self._request, self._timeout_seconds, self._on_stage = request, timeout_seconds, on_stage
        self._child: subprocess.Popen[bytes] | None = None
        self._is_cancelled = threading.Event()

    def run(self, folder: Path) -> None:
        """Fills `folder`. Raises InvalidSae."""
        order = msgspec.structs.replace(self._request, target=str(folder))
        with subprocess.Popen(
            [sys.executable, "-P", "-m", "millm.sae.conversion.process"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=converter_environment(),
            process_group=0,
        ) as child:
            timer = threading.Timer(self._timeout_seconds, child.kill)
            timer.start()
            self._child = child
            try:
                if self._is_cancelled.is_set():
                    child.kill()
                self._communicate(child, msgspec.json.encode(order))
            finally:
                timer.cancel()
                child.kill()

    def kill(self) -> None:
        self._is_cancelled.set()
        if self._child is not None:
            self._child.kill()

    def _communicate(self, child: "subprocess.Popen[bytes]", request: bytes) -> None:
        assert child.stdin is not None
        assert child.stdout is not None
        with contextlib.suppress(BrokenPipeError):  # it has ended already: what it told, if anything, is read below
            child.stdin.write(request)
            child.stdin.close()
        for line in child.stdout:
            news = msgspec.json.decode(line, type=ConversionEvent)
            if news.problem:
                raise InvalidSae(f"{self._request.name}: {news.problem}")
            if not news.stage:
                return
            self._on_stage(news.stage)
        raise InvalidSae(
            f"{self._request.name} could not be converted: it took more than {self._timeout_seconds:.0f} s or more memory than"
            " there is; convert it on a larger machine, and import the folder"
        )


def converter_environment() -> dict[str, str]:
    """Ours without what opens doors, and without the variable that lets a pickle run; nothing is fetched."""
    kept = {
        name: value for name, value in os.environ.items() if name != _UNSAFE_LOAD_VARIABLE and not _SECRET.search(name)
    }
    return {**kept, "HF_HUB_OFFLINE": "1"}


def inspect_source(source: Path) -> ForeignSaeFiles | None:
    """What a folder or a file is, by names alone."""
    if source.is_file():
        return detect_foreign_sae(source.name, _file_names(source.parent, 1))
    return detect_foreign_sae("", _file_names(source, _MAX_DEPTH))


def _file_names(folder: Path, deepest: int) -> set[str]:
    """Files in the folder and those below it, so many levels down."""
    patterns = ["/".join("*" * level) for level in range(1, deepest + 1)]
    return {
        path.relative_to(folder).as_posix() for pattern in patterns for path in folder.glob(pattern) if path.is_file()
    }


def build_conversion_request(
    source: Path, foreign: ForeignSaeFiles, spec: DownloadSpec, memory_limit: int | None = None
) -> ConversionRequest:
    """All but where to write it."""
    known = catalog.find_sae(spec.name)
    return ConversionRequest(
        format=foreign.format,
        source=str(_source_folder(source)),
        files=foreign.files,
        target="",
        name=spec.name,
        model=known.model if known else None,
        input_scale=catalog.input_scale(spec.name),
        memory_limit=memory_limit,
    )


def _source_folder(source: Path) -> Path:
    return source.parent if source.is_file() else source


def _target_folder(source: Path, foreign: ForeignSaeFiles, name: str, home: Home) -> Path:
    """Named by what it is made of: in a cache of Hugging Face's, a file's link is named by its content."""
    files = [_source_folder(source) / file for file in foreign.files]
    made_of = [(file.resolve().name, file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    key = hashlib.sha256(msgspec.json.encode((_CONVERTER_VERSION, foreign.format, name, made_of))).hexdigest()[:24]
    return home.converted_saes / key
