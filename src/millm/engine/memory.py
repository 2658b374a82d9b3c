"""How much memory there is for keys and values, and whether an error says that there is none left."""

import torch

KV_SHARE = {"cuda": 0.85, "cpu": 0.25}
"""Of what is free once the model is loaded. A CPU's memory is everybody's."""

_UNKNOWN = 4 << 30


def kv_bytes(device: torch.device, asked: int | None) -> int:
    if asked is not None:
        return asked
    return int(free_bytes(device) * KV_SHARE.get(device.type, KV_SHARE["cpu"]))


def free_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    try:
        with open("/proc/meminfo") as file:
            return next(int(line.split()[1]) * 1024 for line in file if line.startswith("MemAvailable"))
    except (OSError, StopIteration):
        return _UNKNOWN


def is_out_of_memory(error: BaseException) -> bool:
    """On a CPU torch raises a RuntimeError that only its text tells apart."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)


def release_cached(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.empty_cache()
