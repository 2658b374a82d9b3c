"""Who runs next: first come, first served, as many at once as the runner has room for; texts apart, one by one.

Knows nothing about torch: it plans rows, the runner turns them into tensors.
"""

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from millm.engine.messages import Generate, TextCommand
from millm.engine.sequence import Sequence

MAX_TIMES_PASSED_OVER = 32
"""Sequences that may start before one that came earlier and does not fit yet; then everybody waits for it."""


@dataclass(frozen=True)
class ScheduledRow:
    """Tokens of one sequence to feed in this step; the last one's logits choose the next token."""

    sequence: Sequence
    start: int
    """Position of the first token."""
    tokens: tuple[int, ...]

    @property
    def is_last_chunk(self) -> bool:
        """No chunk of the sequence is left behind this one."""
        return self.start + len(self.tokens) == self.sequence.length

    @property
    def is_scored(self) -> bool:
        """How likely its tokens' successors were is asked for: the logits of all of them are wanted."""
        request = self.sequence.request
        return request.prompt_logprobs is not None and self.start < len(request.prompt)

    @property
    def is_computed(self) -> bool:
        """Its keys and values are there: it cannot be run again."""
        return self.sequence.num_computed_tokens > self.start


ForwardPass = tuple[ScheduledRow, ...]
"""Rows of one length that go through the model together."""


class Scheduler:
    def __init__(
        self, capacity: int, prefill_chunk: int | None = None, runs_alone: Callable[[Sequence], bool] | None = None
    ) -> None:
        """`chunk`: tokens of prompts per step, None: a prompt is fed whole; `alone`: decodes in a pass of its own."""
        self._capacity = self._max_running = capacity
        self._prefill_chunk = prefill_chunk
        self._runs_alone = runs_alone or (lambda _: False)
        self._waiting: deque[Sequence] = deque()
        self._running: list[Sequence] = []
        self._texts: deque[Sequence] = deque()
        """To embed, judge or survey, each in a pass of its own."""

    @property
    def is_idle(self) -> bool:
        return not self._waiting and not self._running and not self._texts

    @property
    def all_sequences(self) -> list[Sequence]:
        return [*self._running, *self._waiting, *self._texts]

    def add(self, request: Generate) -> None:
        self._waiting.append(Sequence.from_request(request))

    def add_text(self, text: TextCommand) -> None:
        self._texts.append(Sequence.from_text(text))

    def next_text(self, fits: Callable[[Sequence], bool]) -> Sequence | None:
        """The text that goes through the model in this step. One that does not fit waits for those that run."""
        first = self._texts[0] if self._texts else None
        return first if first and (fits(first) or not self._running) else None

    def cancel(self, sequence_id: str) -> None:
        for sequence in self.all_sequences:
            if sequence.id == sequence_id:
                sequence.is_cancelled = True

    def pop_cancelled(self) -> list[Sequence]:
        """Cancelled sequences, no longer planned."""
        return self._pop(lambda sequence: sequence.is_cancelled)

    def pop_expired(self, now: float) -> list[Sequence]:
        """Sequences whose deadline is over, no longer planned."""
        return self._pop(lambda sequence: sequence.deadline is not None and sequence.deadline < now)

    def pop_all(self) -> list[Sequence]:
        """Everything that waits or runs, no longer planned."""
        return self._pop(lambda _: True)

    def admit(self, fits: Callable[[Sequence], bool]) -> Iterator[Sequence]:
        """Sequences that start with the next plan, to be started one by one: `fits` sees what the last one took.

        One that does not fit lets later ones pass, up to its patience; with nothing else running it starts anyway.
        """
        stayed: list[Sequence] = []
        if not self._running:
            self._max_running = self._capacity
        while self._waiting and len(self._running) < self._max_running and not any(map(_blocks_admission, stayed)):
            sequence = self._waiting.popleft()
            if fits(sequence) or not self._running:
                self._running.append(sequence)
                for earlier in stayed:
                    earlier.times_passed_over += 1
                yield sequence
                continue
            stayed.append(sequence)
        self._waiting.extendleft(reversed(stayed))

    def plan(self, allocate: Callable[[Sequence], bool]) -> list[ForwardPass]:
        """Decoding sequences first, then a chunk's worth of prompts.

        `place` is asked once for each prompt that begins; False: the sequence has ended instead.
        """
        decoding = [sequence for sequence in self._running if not sequence.is_prefilling]
        together = tuple(_row(sequence) for sequence in decoding if not self._runs_alone(sequence))
        passes = [together] if together else []
        passes += [(_row(sequence),) for sequence in decoding if self._runs_alone(sequence)]
        return passes + self._prefill_passes(allocate)

    def _prefill_passes(self, allocate: Callable[[Sequence], bool]) -> list[ForwardPass]:
        passes: list[ForwardPass] = []
        left = self._prefill_chunk
        for sequence in [sequence for sequence in self._running if sequence.is_prefilling]:
            if sequence.num_computed_tokens == 0 and not allocate(sequence):
                continue
            row = _row(sequence, left if not self._runs_alone(sequence) else None)
            passes.append((row,))
            if left is not None:
                left -= len(row.tokens)
                if left <= 0:
                    break
        return passes

    def is_running(self, rows: ForwardPass) -> bool:
        """False once an earlier pass of the same plan made its sequence wait."""
        return all(row.sequence in self._running for row in rows)

    def reduce_capacity(self) -> bool:
        """Room for one less, until nothing runs; False if only one runs."""
        if len(self._running) < 2:
            return False
        self._max_running = len(self._running) - 1
        return True

    def requeue(self, sequence: Sequence) -> None:
        """Back to the front of those who wait, with what it has generated."""
        self._running.remove(sequence)
        self._waiting.appendleft(sequence)

    @property
    def youngest(self) -> Sequence | None:
        return self._running[-1] if self._running else None

    def remove(self, sequence: Sequence) -> None:
        if sequence in self._running:
            self._running.remove(sequence)
        else:
            (self._texts if sequence in self._texts else self._waiting).remove(sequence)

    def _pop(self, predicate: Callable[[Sequence], bool]) -> list[Sequence]:
        taken = [sequence for sequence in self.all_sequences if predicate(sequence)]
        for sequence in taken:
            self.remove(sequence)
        return taken


def _blocks_admission(sequence: Sequence) -> bool:
    return sequence.times_passed_over >= MAX_TIMES_PASSED_OVER


def _row(sequence: Sequence, max_tokens: int | None = None) -> ScheduledRow:
    return ScheduledRow(sequence, sequence.num_computed_tokens, sequence.uncomputed_tokens[:max_tokens])
