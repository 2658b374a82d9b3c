"""Out of memory: what is given up, one thing at a time, the optional first.

`top_k` over whole dictionaries → watching → the SAEs → the youngest request's place (it waits and begins again).
Whoever loses something is told in its receipt. Nothing comes back by itself.
"""

from dataclasses import dataclass

import structlog
import torch

from millm.engine import memory
from millm.engine.messages import EngineDegraded, EngineEvent
from millm.engine.runners.runner import Runner
from millm.engine.scheduler import Scheduler
from millm.engine.taps import AttachedSaes

log = structlog.get_logger()

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
        memory.empty_device_cache(self.device)
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
