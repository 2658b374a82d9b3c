"""What there is to run a model on, and why the CPU does the work if it does. Never a path.

Imports no torch: what torch can do, the engine says (`Platform`).
"""

import os
import platform as python_platform
import shutil
from pathlib import Path

import msgspec
import psutil  # type: ignore[import-untyped]

from millm.container import read_cgroup_limits
from millm.engine.messages import Platform
from millm.gpus import Gpu, read_driver, visible_gpus
from millm.hub.cache_folder import hf_cache_folder
from millm.why_cpu import CpuFallbackReason, cpu_fallback_reason, has_device_file


class Cpu(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    cores: int | None
    """Physical ones; None where the system does not say."""
    threads: int
    """What may run at once: of the machine, or of this process or container where that is less."""


class Memory(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes, of the machine or of this container where that is less."""

    total: int
    available: int
    ours: int
    """The server's and the engine's."""


class Disk(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes of the disk that something is on."""

    total: int
    free: int


class Hardware(msgspec.Struct, frozen=True, kw_only=True):
    cpu: Cpu
    memory: Memory
    gpus: tuple[Gpu, ...]
    driver: str | None
    """NVIDIA's version."""
    driver_cuda: str | None
    """The newest CUDA that this driver runs."""
    torch: Platform | None
    """What the engine runs on; None until it has started."""
    reason: CpuFallbackReason | None
    """Why the CPU does the work; None where a GPU does, or nobody knows yet."""
    home: Disk
    """Where `MILLM_HOME` is."""
    cache: Disk
    """Where models from Hugging Face are."""


def read_hardware(home: Path, platform: Platform | None) -> Hardware:
    """Takes some milliseconds, with a GPU some dozens: on the event loop, in a thread."""
    found = read_driver()
    return Hardware(
        cpu=read_cpu(),
        memory=_read_memory(),
        gpus=found.gpus if found else (),
        driver=found.version if found else None,
        driver_cuda=f"{found.cuda[0]}.{found.cuda[1]}" if found else None,
        torch=platform,
        reason=cpu_fallback_reason(platform, found, os.environ.get("CUDA_VISIBLE_DEVICES"), has_device_file())
        if platform
        else None,
        home=read_disk(home),
        cache=read_disk(hf_cache_folder()),
    )


def free_memory(device: str) -> int | None:
    """Bytes that `cpu`, `cuda` or `cuda:N` has left; None where nobody says."""
    if device == "cpu":
        return _read_memory().available
    gpu = _find_gpu(device)
    return gpu.free if gpu else None


def total_memory(device: str) -> int | None:
    """Bytes that `cpu`, `cuda` or `cuda:N` has in all; None where nobody says."""
    if device == "cpu":
        return _read_memory().total
    gpu = _find_gpu(device)
    return gpu.total if gpu else None


def _find_gpu(device: str) -> Gpu | None:
    kind, _, number = device.partition(":")
    found = read_driver() if kind == "cuda" else None
    shown = visible_gpus(found.gpus, os.environ.get("CUDA_VISIBLE_DEVICES")) if found else ()
    place = int(number or 0)
    return shown[place] if place < len(shown) else None


def read_cpu() -> Cpu:
    """Takes about a millisecond."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = read_cgroup_limits().cpus
    return Cpu(
        name=_cpu_name(),
        cores=psutil.cpu_count(logical=False),
        threads=min(allowed, max(1, round(quota))) if quota else allowed,
    )


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else python_platform.processor() or python_platform.machine()


def _read_memory() -> Memory:
    whole, allowed = psutil.virtual_memory(), read_cgroup_limits()
    return Memory(
        total=min(whole.total, allowed.memory or whole.total),
        available=whole.available if allowed.memory_left is None else min(whole.available, allowed.memory_left),
        ours=sum(
            _resident_bytes(process) for process in (psutil.Process(), *psutil.Process().children(recursive=True))
        ),
    )


def _resident_bytes(process: psutil.Process) -> int:
    try:
        return int(process.memory_info().rss)
    except psutil.Error:
        return 0  # it has just ended


def read_disk(folder: Path) -> Disk:
    """Of the folder, or of where it would be made."""
    usage = shutil.disk_usage(nearest_existing_folder(folder))
    return Disk(total=usage.total, free=usage.free)


def nearest_existing_folder(folder: Path) -> Path:
    """The folder, or the first above it that exists."""
    return next(path for path in (folder, *folder.parents) if os.path.exists(path))  # False where it is not allowed
