"""How much memory there is for keys and values, and whether an error says that there is none left.

What the API process is told of a failure; the trace stays in the log.

Out of memory: what is given up, one thing at a time, the optional first.

`top_k` over whole dictionaries → watching → the SAEs → the youngest request's place (it waits and begins again).
Whoever loses something is told in its receipt. Nothing comes back by itself.
"""

import ctypes
import gc
import os
from dataclasses import dataclass

import structlog
import torch
from transformers import PreTrainedModel

from millm.engine.attached_saes import AttachedSaes
from millm.engine.messages import KV_CACHE_MEMORY_SHARE, CommandFailed, EngineDegraded, EngineEvent, MemoryUse
from millm.engine.model_runner import Runner
from millm.engine.quantization import Int8Linear
from millm.engine.scheduler import Scheduler
from millm.errors import EngineFailed, InsufficientMemory, MillmError

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


log = structlog.get_logger()


def failure_event(command_id: str, error: Exception) -> CommandFailed:
    """The last event of a command or a sequence that failed with `error`."""
    if is_out_of_memory(error):
        error = InsufficientMemory("the device ran out of memory for this request; make it shorter or try again")
    elif not isinstance(error, MillmError):
        log.error("engine.failed", command=command_id, exc_info=error)
        error = EngineFailed("the engine could not finish this; the server's log has the reason")
    return CommandFailed(id=command_id, code=error.code, message=error.message, param=error.param)


TOP_K_DISABLED = "the device ran out of memory: `top_k` was turned off for this request"
WATCHING_DISABLED = "the device ran out of memory: watching was turned off for this request"
SAES_DISABLED = (
    "the device ran out of memory: every SAE was turned off; attach it again, or restart the server, to steer"
)


@dataclass(frozen=True)
class OutOfMemoryHandler:
    attached_saes: AttachedSaes
    runner: Runner
    scheduler: Scheduler
    device: torch.device

    def degrade(self) -> list[EngineEvent] | None:
        """Give the next thing up; → what to tell, or None when there is nothing left."""
        events = self._degrade_once()
        empty_device_cache(self.device)
        if events is not None:
            log.warning(
                "engine.out_of_memory", told=[event.reason for event in events if isinstance(event, EngineDegraded)]
            )
        return events

    def _degrade_once(self) -> list[EngineEvent] | None:
        everybody = self.scheduler.all_sequences
        if self.attached_saes.disable_top_k(everybody, TOP_K_DISABLED) or self.attached_saes.disable_watching(
            everybody, WATCHING_DISABLED
        ):
            return []
        if self.attached_saes.detach_all(everybody, SAES_DISABLED):
            for sequence in everybody:
                self.runner.on_steering_change(sequence)
            return [EngineDegraded(reason=SAES_DISABLED)]
        return [] if self._preempt() else None

    def _preempt(self) -> bool:
        """The youngest waits until there is one less; not if it is alone."""
        youngest = self.scheduler.youngest
        if youngest is None or not self.scheduler.reduce_capacity():
            return False
        self.runner.release(youngest)
        youngest.restart()
        self.scheduler.requeue(youngest)
        return True
