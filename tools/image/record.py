"""The log of the checks, printed at once and saved for the page. Holds no path or host of this machine."""

import platform
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

import psutil  # type: ignore[import-untyped]

HEAD = """The image, built and run without a Docker daemon by `make image-test` (tools/image).
Not seen here: a GPU in the container, the NVIDIA base image, images from a registry, Docker's own builder.
"""


class Record:
    def __init__(self) -> None:
        self._lines: list[str] = []

    def add(self, lines: str) -> None:
        for line in lines.splitlines():
            self._lines.append(line)
            print(line, flush=True)

    def check(self, what: str, seen: object, expected: object) -> None:
        """Raises SystemExit where it is something else."""
        if seen != expected:
            raise SystemExit(f"{what}: {seen!r}, where {expected!r} was expected")
        self.add(f"  ok  {what}: {seen}")

    @contextmanager
    def step(self, what: str) -> Iterator[None]:
        started = time.monotonic()
        yield
        self.add(f"{time.monotonic() - started:6.0f} s  {what}")

    def tools(self, suite: str) -> None:
        memory = psutil.virtual_memory().total / 2**30
        load = psutil.getloadavg()[0]
        self.add(
            f"{datetime.now(UTC):%Y-%m-%d}, {platform.machine()}, {psutil.cpu_count()} cores, {memory:.0f} GiB;"
            f" before it began, {load:.1f} programs wanted a core"
        )
        self.add(f"{_first_line('buildah', '--version')}; {_first_line('mmdebstrap', '--version')}; Debian {suite}")

    def text(self) -> str:
        return "\n".join([HEAD, *self._lines]) + "\n"


def _first_line(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[0]
