"""How much memory there is for keys and values, and whether an error says that there is none left."""

import ctypes
import gc
import os

import torch
from transformers import PreTrainedModel

from millm.engine.cpu_int8 import Int8Linear
from millm.engine.messages import KV_CACHE_MEMORY_SHARE, MemoryUse
from millm.engine.runners.runner import Runner

_LIBC = ctypes.CDLL(None)

_DEFAULT_FREE_BYTES = 4 << 30


def kv_cache_budget(device: torch.device, requested: int | None) -> int:
    if requested is not None:
        return requested
    return int(free_bytes(device) * KV_CACHE_MEMORY_SHARE.get(device.type, KV_CACHE_MEMORY_SHARE["cpu"]))


def free_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    try:
        with open("/proc/meminfo") as file:
            return next(int(line.split()[1]) * 1024 for line in file if line.startswith("MemAvailable"))
    except (OSError, StopIteration):
        return _DEFAULT_FREE_BYTES


def is_out_of_memory(error: BaseException) -> bool:
    """On a CPU torch raises a RuntimeError that only its text tells apart."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)


def empty_device_cache(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.empty_cache()


def collect_garbage(device: torch.device) -> None:
    """Give back what was let go of: to the device, and to the operating system where its C library keeps it."""
    gc.collect()
    empty_device_cache(device)
    if hasattr(_LIBC, "malloc_trim"):
        _LIBC.malloc_trim(0)


def memory_use(model: PreTrainedModel, runner: Runner | None) -> MemoryUse:
    """What is held, now that it is loaded."""
    return MemoryUse(
        weights=weight_bytes(model),
        kv_cache=runner.kv_cache_bytes if runner else 0,
        process=torch.cuda.memory_allocated(model.device) if model.device.type == "cuda" else _resident_bytes(),
        free=free_bytes(model.device),
    )


def weight_bytes(model: PreTrainedModel) -> int:
    """Of parameters, buffers and packed layers, each storage once."""
    tensors = (*model.parameters(), *model.buffers())
    storages = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in tensors}
    packed = (module.packed_bytes for module in model.modules() if isinstance(module, Int8Linear))
    return sum(storages.values()) + sum(packed)


def _resident_bytes() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
