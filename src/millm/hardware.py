"""What there is to run a model on, and why the CPU does the work if it does. Never a path.

Imports no torch: what torch can do, the engine says (`Platform`).

What a container may use of the machine it is on: Linux' control groups, of both versions.

The NVIDIA GPUs of this machine as their driver tells, whatever torch can do with them. Imports no torch.

Why the CPU does the work where a GPU might, and the command that changes it. Knows no torch, only what it said.
"""

import os
import platform as python_platform
import shutil
from collections.abc import Iterator, Set
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import psutil  # type: ignore[import-untyped]
import pynvml  # type: ignore[import-untyped]

from millm.settings import hf_cache_folder

# --------------------------------------------------------------------------------------- events: engine → API


class Platform(msgspec.Struct, frozen=True, kw_only=True):
    """What the engine runs on."""

    torch: str
    built_for: str | None
    """`CUDA 13.0`, `ROCm 7.0`; None: for the CPU only."""
    threads: int
    """Of the CPU, as torch uses them."""
    devices: tuple[str, ...]
    """Names of the GPUs that torch can use, in the order of their numbers."""


_UNLIMITED = 1 << 60
"""Version 1 writes a number of about that size for no limit."""


@dataclass(frozen=True)
class CgroupLimits:
    """None: as much as the machine has."""

    memory: int | None = None
    """Bytes."""
    memory_left: int | None = None
    """Of these, what is not in use; files in the page cache do not count as use."""
    cpus: float | None = None
    """How many cores' time."""


def read_cgroup_limits(
    cgroup_root: Path = Path("/sys/fs/cgroup"), process_cgroups: Path = Path("/proc/self/cgroup")
) -> CgroupLimits:
    """The tightest of the groups that this process is in."""
    if not process_cgroups.is_file():
        return CgroupLimits()
    memory = [
        found for folder in _cgroup_folders(cgroup_root, process_cgroups, "memory") if (found := _cgroup_memory(folder))
    ]
    cpus = [quota for folder in _cgroup_folders(cgroup_root, process_cgroups, "cpu") if (quota := _cgroup_cpus(folder))]
    return CgroupLimits(
        memory=min((limit for limit, _ in memory), default=None),
        memory_left=min((max(limit - used, 0) for limit, used in memory), default=None),
        cpus=min(cpus, default=None),
    )


def _cgroup_folders(cgroup_root: Path, process_cgroups: Path, controller: str) -> Iterator[Path]:
    """The process's own group and those around it; in a container often only the outermost can be seen."""
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
    """(bytes allowed, bytes in use); None without a limit."""
    limit = _read_number(folder / "memory.max") or _read_number(folder / "memory.limit_in_bytes")
    if limit is None or limit >= _UNLIMITED:
        return None
    used = _read_number(folder / "memory.current") or _read_number(folder / "memory.usage_in_bytes") or 0
    return limit, used - _reclaimable_bytes(folder / "memory.stat")


def _reclaimable_bytes(stat: Path) -> int:
    pairs = dict(line.split() for line in _read_text(stat).splitlines())
    return int(pairs.get("total_inactive_file", pairs.get("inactive_file", 0)))


def _cgroup_cpus(folder: Path) -> float | None:
    quota, period = [*_read_text(folder / "cpu.max").split(), "", ""][:2]
    if not quota:
        quota, period = _read_text(folder / "cpu.cfs_quota_us"), _read_text(folder / "cpu.cfs_period_us")
    return int(quota) / int(period) if quota.isdecimal() and period.isdecimal() and int(quota) else None


def _read_number(path: Path) -> int | None:
    text = _read_text(path)
    return int(text) if text.isdecimal() else None


def _read_text(path: Path) -> str:
    """Empty where there is no such file, or it may not be read."""
    try:
        return path.read_text().strip()
    except OSError:
        return ""


class Gpu(msgspec.Struct, frozen=True, kw_only=True):
    """One GPU; sizes in bytes."""

    number: int
    """As the driver counts them."""
    name: str
    total: int
    used: int
    free: int
    ours: int | None
    """Of what is used, miLLM's; None where the driver does not say (in some containers)."""
    temperature: int | None
    """°C."""
    id: str
    """The driver's, `GPU-…`."""


class Driver(msgspec.Struct, frozen=True, kw_only=True):
    """NVIDIA's driver."""

    version: str
    """E.g. `535.104.05`."""
    cuda: tuple[int, int]
    """The newest CUDA that it runs."""
    gpus: tuple[Gpu, ...]


def read_driver(nvml: Any = pynvml) -> Driver | None:
    """None where there is no driver that answers. Takes about 20 ms with one, under 1 ms without."""
    with _nvml_session(nvml) as is_there:
        if not is_there:
            return None
        cuda = nvml.nvmlSystemGetCudaDriverVersion_v2()
        return Driver(
            version=nvml.nvmlSystemGetDriverVersion(),
            cuda=(cuda // 1000, cuda % 1000 // 10),
            gpus=tuple(_read_gpu(nvml, number, _own_processes()) for number in range(nvml.nvmlDeviceGetCount())),
        )


def visible_gpus(gpus: tuple[Gpu, ...], cuda_visible_devices: str | None) -> tuple[Gpu, ...]:
    """Those that CUDA shows, in its order, for a `CUDA_VISIBLE_DEVICES` of `named`: numbers or ids, up to a wrong one.

    Without one CUDA puts the fastest first; of GPUs that differ, the order can therefore be another than here.
    """
    if cuda_visible_devices is None:
        return gpus
    shown = []
    for name in (part.strip() for part in cuda_visible_devices.split(",")):
        found = [gpu for gpu in gpus if name == str(gpu.number) or (len(name) > 4 and gpu.id.startswith(name))]
        if len(found) != 1:
            break
        shown += found
    return tuple(shown)


@contextmanager
def _nvml_session(nvml: Any) -> Iterator[bool]:
    try:
        nvml.nvmlInit()
    except nvml.NVMLError:
        yield False
        return
    try:
        yield True
    finally:
        nvml.nvmlShutdown()


def _own_processes() -> Set[int]:
    """The server's and its engine's."""
    return {os.getpid(), *(child.pid for child in psutil.Process().children(recursive=True))}


def _read_gpu(nvml: Any, number: int, own: Set[int]) -> Gpu:
    handle = nvml.nvmlDeviceGetHandleByIndex(number)
    memory = nvml.nvmlDeviceGetMemoryInfo(handle)
    return Gpu(
        number=number,
        name=nvml.nvmlDeviceGetName(handle),
        total=memory.total,
        used=memory.used,
        free=memory.free,
        ours=_own_memory(nvml, handle, own),
        temperature=_temperature(nvml, handle),
        id=nvml.nvmlDeviceGetUUID(handle),
    )


def _own_memory(nvml: Any, handle: Any, own: Set[int]) -> int | None:
    try:
        processes = nvml.nvmlDeviceGetComputeRunningProcesses(handle)
    except nvml.NVMLError:
        return None
    sizes = [process.usedGpuMemory for process in processes if process.pid in own]
    return None if None in sizes else sum(sizes)


def _temperature(nvml: Any, handle: Any) -> int | None:
    try:
        return int(nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU))
    except nvml.NVMLError:
        return None


_OLDEST_CUDA = 12
"""There is no torch of ours for a driver that only runs an older one."""
_WHEELS = {12: "cu126", 13: "cu130"}
"""The builds of torch that run on any driver of that CUDA (within 12 and within 13, newer and older go together)."""


class CpuFallbackReason(msgspec.Struct, frozen=True, kw_only=True):
    """Why the CPU does the work."""

    message: str
    fix: str = ""
    """What mends it; empty where there is nothing to mend."""


def has_device_file() -> bool:
    """A GPU as the operating system sees it, whatever a driver or torch does."""
    return any(next(Path("/dev").glob(name), None) for name in ("nvidia[0-9]*", "kfd", "dxg"))


def cpu_fallback_reason(
    platform: Platform, driver: Driver | None, cuda_visible_devices: str | None, has_file: bool
) -> CpuFallbackReason | None:
    """None where torch has a GPU. `shown`: `CUDA_VISIBLE_DEVICES`; `has_file`: of some GPU, whoever made it."""
    if platform.devices:
        return None
    if driver is None or not driver.gpus:
        return (
            _no_driver_reason(platform)
            if has_file
            else CpuFallbackReason(message="no GPU was found: the CPU does the work")
        )
    if not visible_gpus(driver.gpus, cuda_visible_devices):
        return CpuFallbackReason(
            message=f"CUDA_VISIBLE_DEVICES={cuda_visible_devices!r} hides the {driver.gpus[0].name}",
            fix="unset CUDA_VISIBLE_DEVICES",
        )
    return _unusable_gpu_reason(platform, driver)


def _no_driver_reason(platform: Platform) -> CpuFallbackReason:
    return CpuFallbackReason(
        message=f"a GPU is present but this torch cannot use it: torch {_torch_build(platform)}, and no NVIDIA driver answers",
        fix="install the GPU's driver (in a container: start it with the GPU), and the torch that"
        " https://pytorch.org names for it",
    )


def _unusable_gpu_reason(platform: Platform, driver: Driver) -> CpuFallbackReason:
    major, cuda = driver.cuda[0], f"{driver.cuda[0]}.{driver.cuda[1]}"
    if major < _OLDEST_CUDA:
        fix = f"update the NVIDIA driver to 525 or later: there is no torch for CUDA {cuda}"
    elif _torch_cuda_major(platform) == major:
        fix = "restart the machine if the driver was updated (in a container: start it with the GPU); `nvidia-smi` says"
    else:
        fix = pip_command(platform, driver)
    return CpuFallbackReason(
        message=f"a GPU is present ({driver.gpus[0].name}) but this torch cannot use it: driver {driver.version}"
        f" (CUDA {cuda}), torch {_torch_build(platform)}",
        fix=fix,
    )


def pip_command(platform: Platform, driver: Driver) -> str:
    """What installs the build of the same torch that this driver runs."""
    wheels = _WHEELS[min(driver.cuda[0], max(_WHEELS))]
    version = platform.torch.partition("+")[0]
    return f"pip install --force-reinstall torch=={version} --index-url https://download.pytorch.org/whl/{wheels}"


def _torch_build(platform: Platform) -> str:
    return f"{platform.torch} is built for {platform.built_for or 'the CPU only'}"


def _torch_cuda_major(platform: Platform) -> int | None:
    """The major version of the CUDA that torch is built for."""
    name, _, version = (platform.built_for or "").partition(" ")
    return int(version.partition(".")[0]) if name == "CUDA" and version else None


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
