"""The NVIDIA GPUs of this machine as their driver tells, whatever torch can do with them. Imports no torch."""

import os
from collections.abc import Iterator, Set
from contextlib import contextmanager
from typing import Any

import msgspec
import psutil  # type: ignore[import-untyped]
import pynvml  # type: ignore[import-untyped]


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
