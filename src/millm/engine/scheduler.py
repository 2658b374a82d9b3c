"""Schedules sequences first come, first served, and plans the forward passes of each step. Imports no torch."""

import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from msgspec.structs import replace

from millm.engine.messages import Embed, Generate, Reading, ScoreAnswer, TextCommand
from millm.sae.steering import Steering, Watch


@dataclass(eq=False)
class Sequence:
    """State of one request. `cache` belongs to the runner, `sampler_state` and `hook_state` to those modules."""

    request: Generate
    steering: Steering | None = None  # The request's, or the active one if the request follows that
    watch: tuple[Watch, ...] = ()
    output_ids: list[int] = field(default_factory=list)
    num_computed_tokens: int = 0  # Number of tokens whose keys and values are in the cache
    num_cached_tokens: int = 0  # Number of prompt tokens whose keys and values were reused
    is_prefilling: bool = True  # True while the prompt is fed in chunks, in passes of its own
    text_command: TextCommand | None = None  # None for a sequence to continue
    is_cancelled: bool = False
    times_passed_over: int = 0  # Number of later sequences that started before this one
    deadline: float | None = None  # On the monotonic clock
    num_scored_tokens: int = 0  # Number of prompt tokens whose logprobs were reported
    readings: list[Reading] = field(default_factory=list)  # Not yet sent; the next `Token` or `Finished` carries them
    cache: Any = None
    sampler_state: Any = None
    hook_state: Any = None

    @classmethod
    def from_request(cls, request: Generate) -> "Sequence":
        seconds = request.deadline_seconds
        deadline = None if seconds is None else time.monotonic() + seconds
        return cls(request, steering=request.steering, watch=request.watch, deadline=deadline)

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
        """The prompt at first, then the last sampled token; all tokens after a restart."""
        prompt = self.request.prompt
        return (*prompt[self.num_computed_tokens :], *self.output_ids[max(self.num_computed_tokens - len(prompt), 0) :])

    @property
    def max_length(self) -> int:
        return len(self.request.prompt) + self.request.max_tokens

    @property
    def is_at_limit(self) -> bool:
        return len(self.output_ids) >= self.request.max_tokens

    @property
    def needs_prompt_scores(self) -> bool:
        return self.request.prompt_logprobs is not None and self.num_scored_tokens < len(self.request.prompt) - 1

    def restart(self) -> None:
        """Feed all tokens again: their keys and values are lost."""
        self.num_computed_tokens = 0
        self.is_prefilling = True


def _text_as_request(text: TextCommand) -> Generate:
    fields: dict[str, Any] = {"deadline_seconds": text.deadline_seconds, "model": text.model}
    match text:
        case Embed():  # watches of generated tokens apply to the text too
            fields["watch"] = tuple(replace(watch, tokens="prompt") for watch in text.watch)
        case ScoreAnswer():
            fields["steering"] = text.steering
    prompt = text.prompt if isinstance(text, ScoreAnswer) else text.tokens
    return Generate(id=text.id, prompt=prompt, max_tokens=0, **fields)


@dataclass(frozen=True)
class ScheduledRow:
    """Tokens of one sequence to feed in this step."""

    sequence: Sequence
    start: int  # Position of the first token
    tokens: tuple[int, ...]

    @property
    def is_last_chunk(self) -> bool:
        return self.start + len(self.tokens) == self.sequence.length

    @property
    def is_scored(self) -> bool:
        """True if the logits of all tokens are needed, for prompt logprobs."""
        request = self.sequence.request
        return request.prompt_logprobs is not None and self.start < len(request.prompt)

    @property
    def is_computed(self) -> bool:
        """True once the keys and values are written: the row cannot be run again."""
        return self.sequence.num_computed_tokens > self.start


ForwardPass = tuple[ScheduledRow, ...]  # Rows with equal numbers of tokens that go through the model together
MAX_TIMES_PASSED_OVER = 32
"""Maximum number of later sequences that start before one that does not fit yet; then admission stops."""


class Scheduler:
    def __init__(
        self, capacity: int, prefill_chunk: int | None = None, runs_alone: Callable[[Sequence], bool] | None = None
    ) -> None:
        """`prefill_chunk`: prompt tokens per step, None: no limit. `runs_alone`: the sequence is not batched."""
        self._capacity = self._max_running = capacity
        self._prefill_chunk = prefill_chunk
        self._runs_alone = runs_alone or (lambda _: False)
        self._waiting: deque[Sequence] = deque()
        self._running: list[Sequence] = []
        self._texts: deque[Sequence] = deque()

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
        """The text of this step. One that does not fit waits for the running sequences."""
        first = self._texts[0] if self._texts else None
        return first if first and (fits(first) or not self._running) else None

    def cancel(self, sequence_id: str) -> None:
        for sequence in self.all_sequences:
            if sequence.id == sequence_id:
                sequence.is_cancelled = True

    def pop_cancelled(self) -> list[Sequence]:
        return self._pop(lambda sequence: sequence.is_cancelled)

    def pop_expired(self, now: float) -> list[Sequence]:
        return self._pop(lambda sequence: sequence.deadline is not None and sequence.deadline < now)

    def pop_all(self) -> list[Sequence]:
        return self._pop(lambda _: True)

    def admit(self, fits: Callable[[Sequence], bool]) -> Iterator[Sequence]:
        """Yield sequences that start with the next plan, one by one: `fits` sees the memory that the last one took.

        Up to `MAX_TIMES_PASSED_OVER` later sequences pass one that does not fit. With no other running, it starts.
        """
        passed_over: list[Sequence] = []
        if not self._running:
            self._max_running = self._capacity
        while self._waiting and len(self._running) < self._max_running:
            if any(earlier.times_passed_over >= MAX_TIMES_PASSED_OVER for earlier in passed_over):
                break
            sequence = self._waiting.popleft()
            if fits(sequence) or not self._running:
                self._running.append(sequence)
                for earlier in passed_over:
                    earlier.times_passed_over += 1
                yield sequence
                continue
            passed_over.append(sequence)
        self._waiting.extendleft(reversed(passed_over))

    def plan(self, allocate: Callable[[Sequence], bool]) -> list[ForwardPass]:
        """Decoding sequences first, then prompts up to a chunk's tokens.

        `allocate` is called before a prompt's first chunk; False: the sequence has failed.
        """
        decoding = [sequence for sequence in self._running if not sequence.is_prefilling]
        batch = tuple(_row(sequence) for sequence in decoding if not self._runs_alone(sequence))
        passes = [batch] if batch else []
        passes += [(_row(sequence),) for sequence in decoding if self._runs_alone(sequence)]
        return passes + self._prefill_passes(allocate)

    def _prefill_passes(self, allocate: Callable[[Sequence], bool]) -> list[ForwardPass]:
        passes: list[ForwardPass] = []
        budget = self._prefill_chunk
        for sequence in [sequence for sequence in self._running if sequence.is_prefilling]:
            if sequence.num_computed_tokens == 0 and not allocate(sequence):
                continue
            row = _row(sequence, budget if not self._runs_alone(sequence) else None)
            passes.append((row,))
            if budget is not None:
                budget -= len(row.tokens)
                if budget <= 0:
                    break
        return passes

    def is_running(self, rows: ForwardPass) -> bool:
        """False once an earlier pass of the same plan preempted or failed the sequence."""
        return all(row.sequence in self._running for row in rows)

    def reduce_capacity(self) -> bool:
        """Run one sequence less until none runs. False if only one runs."""
        if len(self._running) < 2:
            return False
        self._max_running = len(self._running) - 1
        return True

    def requeue(self, sequence: Sequence) -> None:
        """Move a running sequence to the front of the queue."""
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
        matches = [sequence for sequence in self.all_sequences if predicate(sequence)]
        for sequence in matches:
            self.remove(sequence)
        return matches


def _row(sequence: Sequence, max_tokens: int | None = None) -> ScheduledRow:
    return ScheduledRow(sequence, sequence.num_computed_tokens, sequence.uncomputed_tokens[:max_tokens])
