"""Scheduling under random arrivals, lengths, cancellations, deadlines, failures and memory shortages."""

from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from millm.engine import scheduler as scheduling
from millm.engine.messages import Generate
from millm.engine.scheduler import ForwardPass, ScheduledRow, Scheduler, Sequence

FIRST_GENERATED = 1000


@dataclass(frozen=True)
class Job:
    arrives: int
    """In this step."""
    prompt: int
    """Tokens."""
    new: int
    weight: int = 1
    """Share of the memory."""
    cancelled: int | None = None
    """In this step."""
    late: int | None = None
    """From this step on."""
    fails: str = ""
    """`start` or `allocate`."""


@dataclass
class World:
    """The loop, the runner and the memory around a scheduler."""

    jobs: list[Job]
    scheduler: Scheduler
    capacity: int
    memory: int = 10**6
    chunk: int | None = None
    boundary: int | None = None
    hungry: frozenset[int] = frozenset()
    """Steps in which no sequence fits."""
    short: frozenset[int] = frozenset()
    """Steps in which the first pass runs out of memory."""
    step: int = 0
    started: list[str] = field(default_factory=list)
    running: dict[str, Sequence] = field(default_factory=dict)
    most: int = 10**6
    fed: dict[str, list[int]] = field(default_factory=dict)
    outcomes: dict[str, str] = field(default_factory=dict)

    def turn(self) -> None:
        self._apply_arrivals()
        self._record_removed("cancelled", self.scheduler.pop_cancelled())
        self._record_removed("late", self.scheduler.pop_expired(self.step))
        if not self.running:
            self.most = self.capacity
        for sequence in self.scheduler.admit(self._fits):
            self._start(sequence)
        assert len(self.running) <= min(self.capacity, self.most)
        passes = self.scheduler.plan(self._try_allocate)
        self._check_order(passes)
        for number, rows in enumerate(passes):
            if not self.scheduler.is_running(rows):
                assert any(row.sequence.id not in self.running for row in rows)
            elif number == 0 and self.step in self.short:
                self._run_out(rows)
            else:
                self._run(rows)
        self.step += 1

    def _apply_arrivals(self) -> None:
        for number, job in enumerate(self.jobs):
            if job.arrives == self.step:
                self.scheduler.add(Generate(id=str(number), prompt=tuple(range(job.prompt)), max_tokens=job.new))
                self.scheduler.all_sequences[-1].deadline = job.late
            if job.cancelled == self.step:
                self.scheduler.cancel(str(number))

    def _record_removed(self, why: str, sequences: list[Sequence]) -> None:
        for sequence in sequences:
            self._end(sequence, why)

    def _end(self, sequence: Sequence, why: str) -> None:
        assert sequence.id not in self.outcomes
        self.outcomes[sequence.id] = why
        self.running.pop(sequence.id, None)

    def job(self, sequence: Sequence) -> Job:
        return self.jobs[int(sequence.id)]

    def _fits(self, sequence: Sequence) -> bool:
        used = sum(self.job(other).weight for other in self.running.values())
        return self.step not in self.hungry and used + self.job(sequence).weight <= self.memory

    def _start(self, sequence: Sequence) -> None:
        assert sequence.id not in self.running
        if self.job(sequence).fails == "start":
            self.scheduler.remove(sequence)
            self._end(sequence, "failed")
            return
        self.running[sequence.id] = sequence
        if sequence.id not in self.started:
            self.started.append(sequence.id)
        assert len(self.running) <= self.capacity

    def _try_allocate(self, sequence: Sequence) -> bool:
        assert sequence.is_prefilling
        assert sequence.num_computed_tokens == 0
        self.fed[sequence.id] = []
        if self.job(sequence).fails == "allocate":
            self.scheduler.remove(sequence)
            self._end(sequence, "failed")
            return False
        return True

    def is_alone(self, sequence: Sequence) -> bool:
        return self.boundary is not None and sequence.length > self.boundary

    def _check_order(self, passes: list[ForwardPass]) -> None:
        """Decoding rows first, batched if allowed; then one chunk's tokens of prompts."""
        rows = [row for rows in passes for row in rows]
        assert len({row.sequence.id for row in rows}) == len(rows)
        assert {row.sequence.id for row in rows} <= self.running.keys()
        decoding = [row for row in rows if not row.sequence.is_prefilling]
        assert rows[: len(decoding)] == decoding
        assert {row.sequence.id for row in decoding} == {s.id for s in self.running.values() if not s.is_prefilling}
        assert all(len(row.tokens) == 1 for row in decoding)
        together = [row for row in decoding if not self.is_alone(row.sequence)]
        assert not together or passes[0] == tuple(together)
        assert all(len(rows) == 1 for rows in passes[1 if together else 0 :])
        prompts = rows[len(decoding) :]
        assert prompts or all(not sequence.is_prefilling for sequence in self.running.values())
        self._check_chunk(prompts)

    def _check_chunk(self, prompts: list[ScheduledRow]) -> None:
        unchunked = [row for row in prompts if self.is_alone(row.sequence)]
        assert all(row.is_last_chunk for row in unchunked)
        if self.chunk is None:
            assert all(row.is_last_chunk for row in prompts)
        else:
            assert sum(len(row.tokens) for row in prompts if row not in unchunked) <= self.chunk
            assert not unchunked[1:] or sum(len(row.tokens) for row in unchunked[:-1]) < self.chunk

    def _run(self, rows: ForwardPass) -> None:
        for row in rows:
            self._feed(row)
            if row.is_last_chunk:
                self._choose(row.sequence)

    def _feed(self, row: ScheduledRow) -> None:
        sequence = row.sequence
        assert not sequence.is_cancelled
        assert sequence.deadline is None or sequence.deadline >= self.step
        assert row.tokens
        assert row.start == sequence.num_computed_tokens == len(self.fed[sequence.id])
        self.fed[sequence.id] += row.tokens
        sequence.num_computed_tokens += len(row.tokens)

    def _choose(self, sequence: Sequence) -> None:
        sequence.is_prefilling = False
        sequence.output_ids.append(FIRST_GENERATED + len(sequence.output_ids))
        if sequence.is_at_limit:
            self.scheduler.remove(sequence)
            self._end(sequence, "finished")
        elif self.boundary is not None and sequence.length == self.boundary + 1:
            sequence.restart()

    def _run_out(self, rows: ForwardPass) -> None:
        """As OutOfMemoryHandler: preempt the youngest; a single sequence fails."""
        youngest = self.scheduler.youngest
        assert youngest is not None
        if self.scheduler.reduce_capacity():
            youngest.restart()
            self.scheduler.requeue(youngest)
            del self.running[youngest.id]
            self.most = len(self.running)
        else:
            (row,) = rows
            self.scheduler.remove(row.sequence)
            self._end(row.sequence, "failed")


steps = st.integers(0, 20)
jobs = st.builds(
    Job,
    arrives=steps,
    prompt=st.integers(1, 12),
    new=st.integers(1, 8),
    weight=st.integers(1, 8),
    cancelled=st.none() | st.integers(0, 30),
    late=st.none() | st.none() | st.integers(1, 40),
    fails=st.sampled_from(("", "", "", "", "start", "allocate")),
)


@given(
    jobs=st.lists(jobs, max_size=12),
    capacity=st.integers(1, 4),
    memory=st.integers(4, 16),
    chunk=st.none() | st.integers(1, 6),
    boundary=st.none() | st.integers(2, 14),
    hungry=st.frozensets(steps, max_size=6),
    short=st.frozensets(steps, max_size=6),
    limit=st.integers(0, 3),
)
@settings(max_examples=200, deadline=None)
def test_no_sequence_is_lost_or_starved(
    jobs: list[Job], capacity: int, memory: int, chunk: int | None, boundary: int | None,
    hungry: frozenset[int], short: frozenset[int], limit: int,
) -> None:  # fmt: skip
    """Every token is fed once and in order, rows stay within bounds, each sequence ends once, few are passed over."""
    scheduler = Scheduler(capacity, chunk, lambda sequence: world.is_alone(sequence))
    world = World(jobs, scheduler, capacity, memory, chunk, boundary, hungry, short)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scheduling, "MAX_TIMES_PASSED_OVER", limit)
        while world.step < 21 or not scheduler.is_idle:
            assert world.step < 500, "somebody waits for ever"
            world.turn()
            assert all(sequence.times_passed_over <= limit for sequence in scheduler.all_sequences)
    assert world.outcomes.keys() == {str(number) for number in range(len(jobs))}
    check_ends(world)
    check_passed_over(world, limit)


def check_ends(world: World) -> None:
    """Ended for a valid reason, after exactly the tokens that this takes."""
    for number, job in enumerate(world.jobs):
        why, fed = world.outcomes[str(number)], world.fed.get(str(number), [])
        all_tokens = [*range(job.prompt), *range(FIRST_GENERATED, FIRST_GENERATED + job.new - 1)]
        assert fed == (all_tokens if why == "finished" else all_tokens[: len(fed)])
        assert why != "cancelled" or job.cancelled is not None
        assert why != "late" or job.late is not None
        assert why != "failed" or job.fails or world.short


def check_passed_over(world: World, limit: int) -> None:
    arrived = sorted(range(len(world.jobs)), key=lambda number: (world.jobs[number].arrives, number))
    arrival_index = {str(number): index for index, number in enumerate(arrived)}
    for index, started in enumerate(world.started):
        assert sum(arrival_index[earlier] > arrival_index[started] for earlier in world.started[:index]) <= limit


@given(jobs=st.lists(jobs, max_size=12), capacity=st.integers(1, 4), chunk=st.none() | st.integers(1, 6))
@settings(max_examples=200, deadline=None)
def test_sequences_that_fit_start_in_order(jobs: list[Job], capacity: int, chunk: int | None) -> None:
    world = World(jobs, Scheduler(capacity, chunk), capacity, chunk=chunk)
    while world.step < 21 or not world.scheduler.is_idle:
        world.turn()
    check_ends(world)
    check_passed_over(world, 0)


def test_sequence_that_does_not_fit_is_passed_over_a_limited_number_of_times() -> None:
    """Also if enough fit at once to start all in one step."""
    capacity = 2 * scheduling.MAX_TIMES_PASSED_OVER
    first, large = Job(0, 1, 40, weight=1), Job(0, 1, 1, weight=10_000)
    small = [Job(0, 1, 2) for _ in range(capacity)]
    world = World([first, large, *small], Scheduler(capacity), capacity, memory=10_000)
    for _ in range(30):
        world.turn()
    assert len(world.running) == 1, "everybody waits for the large one"
    assert world.started == ["0", *(str(n) for n in range(2, 2 + scheduling.MAX_TIMES_PASSED_OVER))]
    while "1" not in world.started:
        world.turn()
    assert world.started[-1] == "1"
    while not world.scheduler.is_idle:
        world.turn()
    assert set(world.outcomes.values()) == {"finished"}


def test_preempted_sequence_starts_next() -> None:
    """Until no sequence runs, the capacity is one less."""
    world = World([Job(0, 2, 6) for _ in range(4)], Scheduler(3), 3, short=frozenset({2}))
    world.turn()
    world.turn()
    assert list(world.running) == ["0", "1", "2"]
    world.turn()
    assert list(world.running) == ["0", "1"]
    while len(world.running) == 2:
        world.turn()
    assert world.outcomes == {"0": "finished", "1": "finished"}
    world.turn()
    assert list(world.running) == ["2", "3"]
