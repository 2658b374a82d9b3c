"""Convert another library's SAE in a process of its own without secrets; the copy is published under MILLM_HOME."""

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
"""Increase it to convert all SAEs again."""
_MAX_DEPTH = 3
_SECRET = re.compile(r"TOKEN|SECRET|PASSW|CREDENTIAL|(?:API|ADMIN|ACCESS|PRIVATE)_?KEY", re.IGNORECASE)
_UNSAFE_LOAD_VARIABLE = "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"


def foreign_layout(source: Path) -> str | None:
    """The other library's layout, by file names; None for a supported layout or no SAE."""
    foreign = inspect_source(source)
    return foreign.format if foreign else None


def find_converted(source: Path, name: str, home: Home) -> Path | None:
    """The folder of the copy, if it exists; `name` as in `convert_sae`."""
    foreign = inspect_source(source)
    folder = _target_folder(source, foreign, name, home) if foreign else None
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
    """The folder of the copy, converted unless it exists. Cancelling kills the process and leaves no files.

    `source`: a folder, or the file that is the SAE. `memory_limit`: bytes for the process; None: the free memory.
    Raises InvalidSae.
    """
    foreign = inspect_source(source)
    if foreign is None:
        raise InvalidSae(f"{spec.name} is no SAE of a format that can be converted")
    limit = free_memory("cpu") if memory_limit is None else memory_limit
    loop = asyncio.get_running_loop()

    def report(stage: str) -> None:
        loop.call_soon_threadsafe(on_stage, stage)

    process = _ConversionProcess(build_conversion_request(source, foreign, spec, limit), timeout_seconds, report)
    target = _target_folder(source, foreign, spec.name, home)
    thread = asyncio.ensure_future(asyncio.to_thread(publish, target, process.run))
    try:
        return await asyncio.shield(thread)
    except asyncio.CancelledError:
        process.kill()
        await asyncio.gather(thread, return_exceptions=True)
        raise


class _ConversionProcess:
    """One run of the process: `run` in a thread, `kill` from any thread."""

    def __init__(self, request: ConversionRequest, timeout_seconds: float, on_stage: OnStage) -> None:
        self._request, self._timeout_seconds, self._on_stage = request, timeout_seconds, on_stage
        self._child: subprocess.Popen[bytes] | None = None
        self._is_cancelled = threading.Event()

    def run(self, folder: Path) -> None:
        """Fill `folder`. Raises InvalidSae."""
        request = msgspec.structs.replace(self._request, target=str(folder))
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
                self._communicate(child, msgspec.json.encode(request))
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
        with contextlib.suppress(BrokenPipeError):  # the process has exited; its events, if any, are read below
            child.stdin.write(request)
            child.stdin.close()
        for line in child.stdout:
            event = msgspec.json.decode(line, type=ConversionEvent)
            if event.problem:
                raise InvalidSae(f"{self._request.name}: {event.problem}")
            if not event.stage:
                return
            self._on_stage(event.stage)
        raise InvalidSae(
            f"{self._request.name} could not be converted: it took more than {self._timeout_seconds:.0f} s or more"
            " memory than there is; convert it on a larger machine, and import the folder"
        )


def converter_environment() -> dict[str, str]:
    """The environment without secrets, without the variable that allows pickles to run code, and offline."""
    variables = {
        name: value for name, value in os.environ.items() if name != _UNSAFE_LOAD_VARIABLE and not _SECRET.search(name)
    }
    return {**variables, "HF_HUB_OFFLINE": "1"}


def inspect_source(source: Path) -> ForeignSaeFiles | None:
    if source.is_file():
        return detect_foreign_sae(source.name, _file_names(source.parent, 1))
    return detect_foreign_sae("", _file_names(source, _MAX_DEPTH))


def _file_names(folder: Path, deepest: int) -> set[str]:
    """Files down to `deepest` levels."""
    patterns = ["/".join("*" * level) for level in range(1, deepest + 1)]
    return {
        path.relative_to(folder).as_posix() for pattern in patterns for path in folder.glob(pattern) if path.is_file()
    }


def build_conversion_request(
    source: Path, foreign: ForeignSaeFiles, spec: DownloadSpec, memory_limit: int | None = None
) -> ConversionRequest:
    """All but the target folder."""
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
    """Named by a hash of its sources: in Hugging Face's cache, the target of a link is named by its content."""
    files = [_source_folder(source) / file for file in foreign.files]
    sources = [(file.resolve().name, file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    key = hashlib.sha256(msgspec.json.encode((_CONVERTER_VERSION, foreign.format, name, sources))).hexdigest()[:24]
    return home.converted_saes / key
