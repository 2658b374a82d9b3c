"""Memory accounting, and degradation when the device runs out of memory.

Each shortage turns off the next of: `top_k` → watching → SAEs → the youngest sequence, which is preempted and
restarts. What was turned off stays off; the receipts of the sequences name the reason.
"""

import ctypes
import gc
from dataclasses import dataclass

import psutil  # type: ignore[import-untyped]
import structlog
import torch
from transformers import PreTrainedModel

from millm.engine.attached_saes import AttachedSaes
from millm.engine.messages import KV_CACHE_MEMORY_SHARE, EngineDegraded, EngineEvent, MemoryUse
from millm.engine.model_runner import Runner
from millm.engine.quantization import Int8Linear
from millm.engine.scheduler import Scheduler

log = structlog.get_logger()
_LIBC = ctypes.CDLL(None)
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
        """Free memory by one measure; → events to send, or None when no measure is left."""
        events = self._degrade_once()
        empty_device_cache(self.device)
        if events is not None:
            reasons = [event.reason for event in events if isinstance(event, EngineDegraded)]
            log.warning("engine.out_of_memory", told=reasons)
        return events

    def _degrade_once(self) -> list[EngineEvent] | None:
        saes, sequences = self.attached_saes, self.scheduler.all_sequences
        if saes.disable_top_k(sequences, TOP_K_DISABLED) or saes.disable_watching(sequences, WATCHING_DISABLED):
            return []
        if saes.detach_all(sequences, SAES_DISABLED):
            for sequence in sequences:
                self.runner.on_steering_change(sequence)
            return [EngineDegraded(reason=SAES_DISABLED)]
        return [] if self._preempt() else None

    def _preempt(self) -> bool:
        """Requeue the youngest sequence until another has finished. False if only one runs."""
        youngest = self.scheduler.youngest
        if youngest is None or not self.scheduler.reduce_capacity():
            return False
        self.runner.release(youngest)
        youngest.restart()
        self.scheduler.requeue(youngest)
        return True


def kv_cache_budget(device: torch.device, requested: int | None) -> int:
    if requested is not None:
        return requested
    return int(free_bytes(device) * KV_CACHE_MEMORY_SHARE.get(device.type, KV_CACHE_MEMORY_SHARE["cpu"]))


def free_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return int(psutil.virtual_memory().available)


def empty_device_cache(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.empty_cache()


def collect_garbage(device: torch.device) -> None:
    """Return freed memory to the device and, from the C library, to the operating system."""
    gc.collect()
    empty_device_cache(device)
    if hasattr(_LIBC, "malloc_trim"):
        _LIBC.malloc_trim(0)


def memory_use(model: PreTrainedModel, runner: Runner | None) -> MemoryUse:
    return MemoryUse(
        weights=weight_bytes(model),
        kv_cache=runner.kv_cache_bytes if runner else 0,
        process=int(
            torch.cuda.memory_allocated(model.device)
            if model.device.type == "cuda"
            else psutil.Process().memory_info().rss
        ),
        free=free_bytes(model.device),
    )


def weight_bytes(model: PreTrainedModel) -> int:
    """Bytes of parameters, buffers and packed layers, each storage once."""
    tensors = (*model.parameters(), *model.buffers())
    storages = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in tensors}
    packed = (module.packed_bytes for module in model.modules() if isinstance(module, Int8Linear))
    return sum(storages.values()) + sum(packed)
