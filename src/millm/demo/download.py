"""Run a command that downloads into a folder, and report how far it is by watching the folder from outside.

Knows nothing about what is downloaded.
"""

import os
import subprocess
import time
from pathlib import Path

from millm.demo.progress import OnProgress

_POLL_SECONDS = 0.1
_STALL_SECONDS = 90.0


def run_download_command(
    command: list[str],
    folder: Path,
    total: int,
    on_progress: OnProgress,
    *,
    stall_seconds: float = _STALL_SECONDS,
) -> str | None:
    """Run `command`; None when it succeeded, else everything it said.

    Progress is the largest file under `folder`: pip, uv and hf each write one big file as it comes in,
    there or in the temporary folder inside it that they are given here. (uv unpacks as it goes, so its
    bytes are the unpacked ones, 6 % more than the wheel's.) A child that adds nothing for `stall_seconds`
    is stopped, and so is one whose caller is interrupted.
    """
    scratch, log = folder / "tmp", folder / "download.log"
    scratch.mkdir()
    with log.open("wb") as output:
        child = subprocess.Popen(  # noqa: S603 - a list that fetch.py made, no shell
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, "TMPDIR": str(scratch), "NO_COLOR": "1"},
        )
        try:
            stalled = _watch_progress(child, folder, total, on_progress, stall_seconds)
        finally:
            _terminate(child)
    said = log.read_text(encoding="utf-8", errors="replace")
    if stalled:
        return f"{said}\nError: nothing arrived for {stall_seconds:.0f} s"
    return f"exit status {child.returncode}\n{said}" if child.returncode else None


def _watch_progress(
    child: "subprocess.Popen[bytes]", folder: Path, total: int, on_progress: OnProgress, stall_seconds: float
) -> bool:
    """Report until the child ends (False) or stalls (True). A file that is just being renamed takes nothing back."""
    size, most, moved = -1, 0, time.monotonic()
    while child.poll() is None:
        before, size = size, _largest_file_size(folder)
        if size != before:
            moved = time.monotonic()
        most = max(most, size)
        on_progress("download", min(most, total), total)
        if time.monotonic() - moved > stall_seconds:
            return True
        time.sleep(_POLL_SECONDS)
    if child.returncode == 0:
        on_progress("download", total, total)
    return False


def _largest_file_size(folder: Path) -> int:
    sizes = [0]
    for root, _, files in os.walk(folder):
        for name in files:
            try:
                sizes.append(os.stat(os.path.join(root, name)).st_size)
            except FileNotFoundError:
                continue  # the child renames its files as it goes
    return max(sizes)


def _terminate(child: "subprocess.Popen[bytes]") -> None:
    if child.poll() is None:
        child.terminate()
        try:
            child.wait(5)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
