"""Who runs next: first come, first served, as many at once as the runner has room for; texts apart, one by one.

Knows nothing about torch: it plans rows, the runner turns them into tensors.
"""

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from millm.engine.messages import Generate, Text
from millm.engine.sequence import Sequence

PATIENCE = 32
"""Sequences that may start before one that came earlier and does not fit yet; then everybody waits for it."""


@dataclass(frozen=True)
class Row:
    """Tokens of one sequence to feed in this step; the last one's logits choose the next token."""

    sequence: Sequence
    start: int
    """Position of the first token."""
    tokens: tuple[int, ...]

    @property
    def chooses(self) -> bool:
        """No chunk of the sequence is left behind this one."""
        return self.start + len(self.tokens) == self.sequence.length

    @property
    def is_scored(self) -> bool:
        """How likely its tokens' successors were is asked for: the logits of all of them are wanted."""
        request = self.sequence.request
        return request.prompt_logprobs is not None and self.start < len(request.prompt)

    @property
    def was_fed(self) -> bool:
        """Its keys and values are there: it cannot be run again."""
        return self.sequence.fed > self.start


Pass = tuple[Row, ...]
"""Rows of one length that go through the model together."""


class Scheduler:
    def __init__(
        self, capacity: int, chunk: int | None = None, alone: Callable[[Sequence], bool] | None = None
    ) -> None:
        """`chunk`: tokens of prompts per step, None: a prompt is fed whole; `alone`: decodes in a pass of its own."""
        self._capacity = self._room = capacity
        self._chunk = chunk
        self._alone = alone or (lambda _: False)
        self._waiting: deque[Sequence] = deque()
        self._running: list[Sequence] = []
        self._texts: deque[Sequence] = deque()
        """To embed, judge or survey, each in a pass of its own."""

    @property
    def is_idle(self) -> bool:
        return not self._waiting and not self._running and not self._texts

    @property
    def everybody(self) -> list[Sequence]:
        return [*self._running, *self._waiting, *self._texts]

    def add(self, request: Generate) -> None:
        self._waiting.append(Sequence.of(request))

    def add_text(self, text: Text) -> None:
        self._texts.append(Sequence.of_text(text))

    def next_text(self, fits: Callable[[Sequence], bool]) -> Sequence | None:
        """The text that goes through the model in this step. One that does not fit waits for those that run."""
        first = self._texts[0] if self._texts else None
        return first if first and (fits(first) or not self._running) else None

    def cancel(self, sequence_id: str) -> None:
        for sequence in self.everybody:
            if sequence.id == sequence_id:
                sequence.cancelled = True

    def take_cancelled(self) -> list[Sequence]:
        """Cancelled sequences, no longer planned."""
        return self._take(lambda sequence: sequence.cancelled)

    def take_late(self, now: float) -> list[Sequence]:
        """Sequences whose deadline is over, no longer planned."""
        return self._take(lambda sequence: sequence.due is not None and sequence.due < now)

    def take_all(self) -> list[Sequence]:
        """Everything that waits or runs, no longer planned."""
        return self._take(lambda _: True)

    def admit(self, fits: Callable[[Sequence], bool]) -> Iterator[Sequence]:
        """Sequences that start with the next plan, to be started one by one: `fits` sees what the last one took.

        One that does not fit lets later ones pass, up to its patience; with nothing else running it starts anyway.
        """
        stayed: list[Sequence] = []
        if not self._running:
            self._room = self._capacity
        while self._waiting and len(self._running) < self._room and not any(map(_out_of_patience, stayed)):
            sequence = self._waiting.popleft()
            if fits(sequence) or not self._running:
                self._running.append(sequence)
                for earlier in stayed:
                    earlier.passed_over += 1
                yield sequence
                continue
            stayed.append(sequence)
        self._waiting.extendleft(reversed(stayed))

    def plan(self, place: Callable[[Sequence], bool]) -> list[Pass]:
        """Decoding sequences first, then a chunk's worth of prompts.

        `place` is asked once for each prompt that begins; False: the sequence has ended instead.
        """
        decoding = [sequence for sequence in self._running if not sequence.prefilling]
        together = tuple(_row(sequence) for sequence in decoding if not self._alone(sequence))
        passes = [together] if together else []
        passes += [(_row(sequence),) for sequence in decoding if self._alone(sequence)]
        return passes + self._chunks(place)

    def _chunks(self, place: Callable[[Sequence], bool]) -> list[Pass]:
        passes: list[Pass] = []
        left = self._chunk
        for sequence in [sequence for sequence in self._running if sequence.prefilling]:
            if sequence.fed == 0 and not place(sequence):
                continue
            row = _row(sequence, left if not self._alone(sequence) else None)
            passes.append((row,))
            if left is not None:
                left -= len(row.tokens)
                if left <= 0:
                    break
        return passes

    def runs(self, rows: Pass) -> bool:
        """False once an earlier pass of the same plan made its sequence wait."""
        return all(row.sequence in self._running for row in rows)

    def shrink(self) -> bool:
        """Room for one less, until nothing runs; False if only one runs."""
        if len(self._running) < 2:
            return False
        self._room = len(self._running) - 1
        return True

    def postpone(self, sequence: Sequence) -> None:
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

    def _take(self, wanted: Callable[[Sequence], bool]) -> list[Sequence]:
        taken = [sequence for sequence in self.everybody if wanted(sequence)]
        for sequence in taken:
            self.remove(sequence)
        return taken


def _out_of_patience(sequence: Sequence) -> bool:
    return sequence.passed_over >= PATIENCE


def _row(sequence: Sequence, most: int | None = None) -> Row:
    return Row(sequence, sequence.fed, sequence.unfed[:most])
