"""Who runs next: first come, first served, as many at once as the runner has room for.

Knows nothing about torch: it plans rows, the runner turns them into tensors.
"""

from collections import deque
from dataclasses import dataclass

from millm.engine.messages import Generate
from millm.engine.sequence import Sequence


@dataclass(frozen=True)
class Row:
    """Tokens of one sequence to feed in this step; the last one's logits choose the next token."""

    sequence: Sequence
    start: int
    """Position of the first token."""
    tokens: tuple[int, ...]


@dataclass(frozen=True)
class StepPlan:
    rows: tuple[Row, ...]


class Scheduler:
    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._waiting: deque[Sequence] = deque()
        self._running: list[Sequence] = []

    @property
    def is_idle(self) -> bool:
        return not self._waiting and not self._running

    def add(self, request: Generate) -> None:
        self._waiting.append(Sequence(request))

    def cancel(self, sequence_id: str) -> None:
        for sequence in (*self._waiting, *self._running):
            if sequence.id == sequence_id:
                sequence.cancelled = True

    def take_cancelled(self) -> list[Sequence]:
        """Cancelled sequences, no longer planned."""
        cancelled = [sequence for sequence in (*self._waiting, *self._running) if sequence.cancelled]
        for sequence in cancelled:
            self.remove(sequence)
        return cancelled

    def take_all(self) -> list[Sequence]:
        """Everything that waits or runs, no longer planned."""
        everything = [*self._running, *self._waiting]
        self._running.clear()
        self._waiting.clear()
        return everything

    def admit(self) -> list[Sequence]:
        """Sequences that start with the next plan."""
        started = []
        while self._waiting and len(self._running) < self.capacity:
            started.append(self._waiting.popleft())
            self._running.append(started[-1])
        return started

    def plan(self) -> StepPlan:
        return StepPlan(tuple(Row(sequence, sequence.fed, sequence.unfed) for sequence in self._running))

    def remove(self, sequence: Sequence) -> None:
        if sequence in self._running:
            self._running.remove(sequence)
        else:
            self._waiting.remove(sequence)
