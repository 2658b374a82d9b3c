"""Out of memory: what is given up, one thing at a time, the optional first.

`top_k` over whole dictionaries → watching → the SAEs → the youngest request's place (it waits and begins again).
Whoever loses something is told in its receipt. Nothing comes back by itself.
"""

from dataclasses import dataclass

import structlog
import torch

from millm.engine import memory
from millm.engine.messages import Degraded, Event
from millm.engine.runners.runner import Runner
from millm.engine.scheduler import Scheduler
from millm.engine.taps import Taps

log = structlog.get_logger()

NO_TOP_K = "the device ran out of memory: `top_k` was turned off for this request"
NO_WATCHING = "the device ran out of memory: watching was turned off for this request"
NO_SAE = "the device ran out of memory: every SAE was turned off; attach it again, or restart the server, to steer"


@dataclass(frozen=True)
class Relief:
    taps: Taps
    runner: Runner
    scheduler: Scheduler
    device: torch.device

    def find(self) -> list[Event] | None:
        """Give the next thing up; → what to tell, or None when there is nothing left."""
        events = self._give_up()
        memory.release_cached(self.device)
        if events is not None:
            log.warning("engine.out_of_memory", told=[event.reason for event in events if isinstance(event, Degraded)])
        return events

    def _give_up(self) -> list[Event] | None:
        everybody = self.scheduler.everybody
        if self.taps.give_up_full_width(everybody, NO_TOP_K) or self.taps.give_up_watching(everybody, NO_WATCHING):
            return []
        if self.taps.detach_all(everybody, NO_SAE):
            for sequence in everybody:
                self.runner.change(sequence)
            return [Degraded(reason=NO_SAE)]
        return [] if self._preempt() else None

    def _preempt(self) -> bool:
        """The youngest waits until there is one less; not if it is alone."""
        youngest = self.scheduler.youngest
        if youngest is None or not self.scheduler.shrink():
            return False
        self.runner.release(youngest)
        youngest.begin_again()
        self.scheduler.postpone(youngest)
        return True
