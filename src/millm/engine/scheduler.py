"""Who runs next: first come, first served, as many at once as the runner has room for; texts apart, one by one.

Knows nothing about torch: it plans rows, the runner turns them into tensors.

One sequence while it runs: the request that never changes, and how far it has come.
"""

import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from msgspec.structs import replace

from millm.engine.messages import Embed, Generate, Reading, ScanFeatures, ScoreAnswer, TextCommand
from millm.sae.steering import Steering, Watch


@dataclass(eq=False)
class Sequence:
    """Owned by the engine's loop. `cache` belongs to the runner, `sampler` to the sampler, `taps` to the taps."""

    request: Generate
    steering: Steering | None = None
    """The request's, or what is active by now if it follows that."""
    watch: tuple[Watch, ...] = ()
    output_ids: list[int] = field(default_factory=list)
    num_computed_tokens: int = 0
    """Tokens that went through the model; their keys and values are in the cache."""
    num_cached_tokens: int = 0
    """Tokens of the prompt whose keys and values were there already."""
    is_prefilling: bool = True
    """Not yet through with what it came with: its tokens go through the model by themselves, in chunks."""
    text_command: TextCommand | None = None
    """What is asked about it in a pass of its own; None: it is to be continued."""
    is_cancelled: bool = False
    times_passed_over: int = 0
    """How often a later one started before it."""
    deadline: float | None = None
    """When its deadline is, on the monotonic clock."""
    num_scored_tokens: int = 0
    """Tokens of the prompt whose likelihood was reported, where that is asked for."""
    readings: list[Reading] = field(default_factory=list)
    """Of chunks that chose no token; they go out with the next that does."""
    cache: Any = None
    sampler_state: Any = None
    hook_state: Any = None

    @classmethod
    def from_request(cls, request: Generate) -> "Sequence":
        seconds = request.deadline_seconds
        due = None if seconds is None else time.monotonic() + seconds
        return cls(request, steering=request.steering, watch=request.watch, deadline=due)

    @classmethod
    def from_text(cls, text: TextCommand) -> "Sequence":
        sequence = cls.from_request(_text_as_request(text))
        sequence.text_command = text
        if isinstance(text, ScoreAnswer):
            sequence.output_ids = list(text.answer)
        return sequence

    @property
    def id(self) -> str:
        return self.request.id

    @property
    def length(self) -> int:
        return len(self.request.prompt) + len(self.output_ids)

    @property
    def uncomputed_tokens(self) -> tuple[int, ...]:
        """The prompt at first, then the token chosen last; both, when it has to begin again."""
        prompt = self.request.prompt
        return (*prompt[self.num_computed_tokens :], *self.output_ids[max(self.num_computed_tokens - len(prompt), 0) :])

    @property
    def max_length(self) -> int:
        """It never has more than these in the cache."""
        return len(self.request.prompt) + self.request.max_tokens

    @property
    def is_at_limit(self) -> bool:
        return len(self.output_ids) >= self.request.max_tokens

    @property
    def needs_prompt_scores(self) -> bool:
        """Its prompt has to go through the model for how likely it is."""
        return self.request.prompt_logprobs is not None and self.num_scored_tokens < len(self.request.prompt) - 1

    def restart(self) -> None:
        """Its keys and values are lost: everything it has is fed once more."""
        self.num_computed_tokens = 0
        self.is_prefilling = True


def _text_as_request(text: TextCommand) -> Generate:
    """All of it is a prompt, save for the answer that is judged."""
    common: dict[str, Any] = {
        "id": text.id,
        "max_tokens": 0,
        "deadline_seconds": text.deadline_seconds,
        "model": text.model,
    }
    match text:
        case Embed():  # what a watch asks of generated tokens is told of these
            watch = tuple(replace(watch, tokens="prompt") for watch in text.watch)
            return Generate(prompt=text.tokens, watch=watch, **common)
        case ScoreAnswer():
            return Generate(prompt=text.prompt, steering=text.steering, **common)
        case ScanFeatures():
            return Generate(prompt=text.tokens, **common)


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
