"""Reads CPU, memory, disks, GPUs and container limits, and why no GPU is used. Imports no torch, reports no paths."""

import os
import platform as python_platform
import shutil
from collections.abc import Iterator, Set
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import psutil  # type: ignore[import-untyped]
import pynvml  # type: ignore[import-untyped]

from millm.settings import hf_cache_folder

_UNLIMITED = 1 << 60  # cgroup version 1 writes a number of about this size for no limit
_OLDEST_CUDA = 12  # no supported build of torch runs on a driver for an older CUDA
_WHEELS = {12: "cu126", 13: "cu130"}  # builds of torch by the major CUDA version of the driver


class Platform(msgspec.Struct, frozen=True, kw_only=True):
    """What torch uses in the engine."""

    torch: str
    built_for: str | None
    """`CUDA 13.0`, `ROCm 7.0`; None: the CPU only."""
    threads: int
    """CPU threads."""
    devices: tuple[str, ...]
    """Names of the usable GPUs, in the order of their numbers."""


class Cpu(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    cores: int | None
    """Physical; None: unknown."""
    threads: int
    """Of the machine, or of this process or container if that is less."""


class Memory(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes, of the machine or of this container if that is less."""

    total: int
    available: int
    ours: int
    """Resident memory of the server and the engine."""


class Disk(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes."""

    total: int
    free: int


class Gpu(msgspec.Struct, frozen=True, kw_only=True):
    """One GPU; sizes in bytes."""

    number: int
    name: str
    total: int
    used: int
    free: int
    ours: int | None
    """Part of `used`; None: the driver does not report it (in some containers)."""
    temperature: int | None
    """°C."""
    id: str
    """The driver's, e.g. `GPU-5ca1ab1e-…`."""


class Driver(msgspec.Struct, frozen=True, kw_only=True):
    version: str  # e.g. `535.104.05`
    cuda: tuple[int, int]  # newest version that the driver supports
    gpus: tuple[Gpu, ...]


class CpuFallbackReason(msgspec.Struct, frozen=True, kw_only=True):
    """Why the model runs on the CPU."""

    message: str
    fix: str = ""


class Hardware(msgspec.Struct, frozen=True, kw_only=True):
    cpu: Cpu
    memory: Memory
    gpus: tuple[Gpu, ...]
    driver: str | None
    """Version of NVIDIA's driver."""
    driver_cuda: str | None
    """Newest CUDA version that the driver supports."""
    torch: Platform | None
    """None until the engine has started."""
    reason: CpuFallbackReason | None
    """None if a GPU is used, or before the engine has started."""
    home: Disk
    """Of `MILLM_HOME`."""
    cache: Disk
    """Of the Hugging Face cache."""


def read_hardware(home: Path, platform: Platform | None) -> Hardware:
    """Needs milliseconds, or dozens of them with a GPU: call it in a thread."""
    driver = read_driver()
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return Hardware(
        cpu=read_cpu(),
        memory=_read_memory(),
        gpus=driver.gpus if driver else (),
        driver=driver.version if driver else None,
        driver_cuda=f"{driver.cuda[0]}.{driver.cuda[1]}" if driver else None,
        torch=platform,
        reason=cpu_fallback_reason(platform, driver, visible, has_device_file()) if platform else None,
        home=read_disk(home),
        cache=read_disk(hf_cache_folder()),
    )


def free_memory(device: str) -> int | None:
    """Free bytes of `cpu`, `cuda` or `cuda:N`; None if unknown."""
    if device == "cpu":
        return _read_memory().available
    gpu = _find_gpu(device)
    return gpu.free if gpu else None


def total_memory(device: str) -> int | None:
    """All bytes of `cpu`, `cuda` or `cuda:N`; None if unknown."""
    memory = _read_memory() if device == "cpu" else _find_gpu(device)
    return memory.total if memory else None


def _find_gpu(device: str) -> Gpu | None:
    kind, _, number = device.partition(":")
    driver = read_driver() if kind == "cuda" else None
    gpus = visible_gpus(driver.gpus, os.environ.get("CUDA_VISIBLE_DEVICES")) if driver else ()
    index = int(number or 0)
    return gpus[index] if index < len(gpus) else None


def read_cpu() -> Cpu:
    """Needs about a millisecond."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = read_cgroup_limits().cpus
    lines = _read_text(Path("/proc/cpuinfo")).splitlines()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return Cpu(
        name=next(names, "") or python_platform.processor() or python_platform.machine(),
        cores=psutil.cpu_count(logical=False),
        threads=min(allowed, max(1, round(quota))) if quota else allowed,
    )


def _read_memory() -> Memory:
    machine, limits = psutil.virtual_memory(), read_cgroup_limits()
    ours = 0
    for process in (psutil.Process(), *psutil.Process().children(recursive=True)):
        with suppress(psutil.Error):  # the process has just ended
            ours += int(process.memory_info().rss)
    return Memory(
        total=min(machine.total, limits.memory or machine.total),
        available=machine.available if limits.memory_left is None else min(machine.available, limits.memory_left),
        ours=ours,
    )


def read_disk(folder: Path) -> Disk:
    total, _, free = shutil.disk_usage(nearest_existing_folder(folder))
    return Disk(total=total, free=free)


def nearest_existing_folder(folder: Path) -> Path:
    """The folder or its nearest existing parent."""
    return next(path for path in (folder, *folder.parents) if os.path.exists(path))  # False without permission


@dataclass(frozen=True)
class CgroupLimits:
    """Limits of Linux control groups; None: no limit."""

    memory: int | None = None  # bytes
    memory_left: int | None = None  # unused bytes; files in the page cache count as unused
    cpus: float | None = None  # cores


def read_cgroup_limits(
    cgroup_root: Path = Path("/sys/fs/cgroup"), process_cgroups: Path = Path("/proc/self/cgroup")
) -> CgroupLimits:
    """The tightest limits of the process's groups, of cgroup version 1 or 2."""
    if not process_cgroups.is_file():
        return CgroupLimits()
    memory = list(filter(None, map(_cgroup_memory, _cgroup_folders(cgroup_root, process_cgroups, "memory"))))
    cpus = filter(None, map(_cgroup_cpus, _cgroup_folders(cgroup_root, process_cgroups, "cpu")))
    return CgroupLimits(
        memory=min((limit for limit, _ in memory), default=None),
        memory_left=min((max(limit - used, 0) for limit, used in memory), default=None),
        cpus=min(cpus, default=None),
    )


def _cgroup_folders(cgroup_root: Path, process_cgroups: Path, controller: str) -> Iterator[Path]:
    """The process's group and its parents; a container often sees only the outermost."""
    for line in process_cgroups.read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        root = cgroup_root / controllers if controllers else cgroup_root
        group = root / path.lstrip("/")
        while group != root and root in group.parents:
            yield group
            group = group.parent
        yield root


def _cgroup_memory(folder: Path) -> tuple[int, int] | None:
    """(limit, bytes in use); None without a limit."""
    limit = _read_number(folder, "memory.max", "memory.limit_in_bytes")
    if limit is None or limit >= _UNLIMITED:
        return None
    used = _read_number(folder, "memory.current", "memory.usage_in_bytes") or 0
    stat = dict(line.split() for line in _read_text(folder / "memory.stat").splitlines())
    return limit, used - int(stat.get("total_inactive_file", stat.get("inactive_file", 0)))


def _cgroup_cpus(folder: Path) -> float | None:
    quota, period = [*_read_text(folder / "cpu.max").split(), "", ""][:2]
    if not quota:
        quota, period = _read_text(folder / "cpu.cfs_quota_us"), _read_text(folder / "cpu.cfs_period_us")
    return int(quota) / int(period) if quota.isdecimal() and period.isdecimal() and int(quota) else None


def _read_number(folder: Path, *names: str) -> int | None:
    """From the first of the files that holds one."""
    return next((int(text) for name in names if (text := _read_text(folder / name)).isdecimal()), None)


def _read_text(path: Path) -> str:
    """Empty if the file cannot be read."""
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def read_driver(nvml: Any = pynvml) -> Driver | None:
    """None without a working driver. Needs about 20 ms with one, under 1 ms without."""
    try:
        nvml.nvmlInit()
    except nvml.NVMLError:
        return None
    try:
        cuda = nvml.nvmlSystemGetCudaDriverVersion_v2()
        own_pids = {os.getpid(), *(child.pid for child in psutil.Process().children(recursive=True))}
        return Driver(
            version=nvml.nvmlSystemGetDriverVersion(),
            cuda=(cuda // 1000, cuda % 1000 // 10),
            gpus=tuple(_read_gpu(nvml, number, own_pids) for number in range(nvml.nvmlDeviceGetCount())),
        )
    finally:
        nvml.nvmlShutdown()


def _read_gpu(nvml: Any, number: int, own_pids: Set[int]) -> Gpu:
    handle = nvml.nvmlDeviceGetHandleByIndex(number)
    memory = nvml.nvmlDeviceGetMemoryInfo(handle)
    ours = temperature = None
    with suppress(nvml.NVMLError):
        processes = nvml.nvmlDeviceGetComputeRunningProcesses(handle)
        sizes = [process.usedGpuMemory for process in processes if process.pid in own_pids]
        ours = None if None in sizes else sum(sizes)
    with suppress(nvml.NVMLError):
        temperature = int(nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU))
    return Gpu(
        number=number,
        name=nvml.nvmlDeviceGetName(handle),
        total=memory.total,
        used=memory.used,
        free=memory.free,
        ours=ours,
        temperature=temperature,
        id=nvml.nvmlDeviceGetUUID(handle),
    )


def visible_gpus(gpus: tuple[Gpu, ...], cuda_visible_devices: str | None) -> tuple[Gpu, ...]:
    """GPUs that `CUDA_VISIBLE_DEVICES` lists by number or id, in its order, up to the first invalid entry."""
    if cuda_visible_devices is None:
        return gpus  # in the driver's order; CUDA itself puts the fastest first
    visible: list[Gpu] = []
    for name in (part.strip() for part in cuda_visible_devices.split(",")):
        matches = [gpu for gpu in gpus if name == str(gpu.number) or (len(name) > 4 and gpu.id.startswith(name))]
        if len(matches) != 1:
            break
        visible += matches
    return tuple(visible)


def has_device_file() -> bool:
    """True if the operating system sees a GPU, with or without a driver."""
    return any(next(Path("/dev").glob(name), None) for name in ("nvidia[0-9]*", "kfd", "dxg"))


def cpu_fallback_reason(
    platform: Platform, driver: Driver | None, cuda_visible_devices: str | None, has_file: bool
) -> CpuFallbackReason | None:
    """None if torch has a GPU. `has_file`: the result of `has_device_file`."""
    if platform.devices:
        return None
    build = f"torch {platform.torch} is built for {platform.built_for or 'the CPU only'}"
    if driver is None or not driver.gpus:
        if not has_file:
            return CpuFallbackReason(message="no GPU was found: the CPU does the work")
        return CpuFallbackReason(
            message=f"a GPU is present but this torch cannot use it: {build}, and no NVIDIA driver answers",
            fix="install the GPU's driver (in a container: start it with the GPU), and the torch that"
            " https://pytorch.org names for it",
        )
    name = driver.gpus[0].name
    if not visible_gpus(driver.gpus, cuda_visible_devices):
        message = f"CUDA_VISIBLE_DEVICES={cuda_visible_devices!r} hides the {name}"
        return CpuFallbackReason(message=message, fix="unset CUDA_VISIBLE_DEVICES")
    message = f"a GPU is present ({name}) but this torch cannot use it: driver {driver.version}"
    cuda = f"{driver.cuda[0]}.{driver.cuda[1]}"
    return CpuFallbackReason(message=f"{message} (CUDA {cuda}), {build}", fix=_gpu_fix(platform, driver))


def _gpu_fix(platform: Platform, driver: Driver) -> str:
    major, minor = driver.cuda
    if major < _OLDEST_CUDA:
        return f"update the NVIDIA driver to 525 or later: there is no torch for CUDA {major}.{minor}"
    if (platform.built_for or "").startswith(f"CUDA {major}."):
        return "restart the machine if the driver was updated; in a container, start it with the GPU (see `nvidia-smi`)"
    return pip_command(platform, driver)


def pip_command(platform: Platform, driver: Driver) -> str:
    """Installs the same version of torch, built for this driver."""
    wheels = _WHEELS[min(driver.cuda[0], max(_WHEELS))]
    version = platform.torch.partition("+")[0]
    return f"pip install --force-reinstall torch=={version} --index-url https://download.pytorch.org/whl/{wheels}"
