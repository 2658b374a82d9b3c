"""The slot allocator's records match a model of the rows' contents."""

from dataclasses import dataclass, field

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from millm.engine.kv_cache import MIN_REUSED_PREFIX, Slot, SlotAllocator, token_key

PROMPTS = [
    tuple(range(common)) + (100 + tail,) * more for common in (0, 7, 9, 16) for tail in (0, 1) for more in (1, 9)
]
STEERINGS = ("", "push")
Cell = tuple[object, tuple[int, ...], bool]
"""Dependencies of a column's keys and values: steering, all tokens up to it, and finiteness."""


@dataclass(eq=False)
class RowOwner:
    """A sequence that has a row, as its runner sees it."""

    slot: Slot
    steering: object
    prompt: tuple[int, ...]
    fed: list[Cell] = field(default_factory=list)
    token_keys: list[int] = field(default_factory=list)
    decodes: bool = False
    is_sound: bool = True
    """False: its next keys and values are not finite."""


class Rows(RuleBasedStateMachine):
    """`cells` models the memory; only copy, swap and resize move contents."""

    @initialize(rows=st.integers(1, 5))
    def begin(self, rows: int) -> None:
        self.cells: list[list[Cell]] = [[] for _ in range(rows)]
        self.slots = SlotAllocator(rows, self.swap)
        self.owners: list[RowOwner] = []
        self.used: dict[Slot, int] = {}
        self.clock = 0
        self.epoch = 0

    def swap(self, one: Slot, other: Slot) -> None:
        self.cells[one.row], self.cells[other.row] = self.cells[other.row], self.cells[one.row]

    def touch(self, slot: Slot) -> None:
        self.clock += 1
        self.used[slot] = self.clock

    @precondition(lambda self: len(self.owners) < len(self.slots))
    @rule(prompt=st.sampled_from(PROMPTS), steering=st.sampled_from(STEERINGS))
    def place(self, prompt: tuple[int, ...], steering: str) -> None:
        token_keys = [token_key(token, bool(steering)) for token in prompt[:-1]]
        idle = [slot for slot in self.slots if not slot.is_busy]
        longest = self.longest(steering, token_keys)
        warm = {slot: slot.finite_count > 0 for slot in idle}
        found = self.slots.allocate(steering, token_keys)
        assert found.slot in idle
        assert found.slot.is_busy
        assert found.cached_count == longest
        if found.source:
            assert found.source is not found.slot
            self.cells[found.slot.row][: found.cached_count] = self.cells[found.source.row][: found.cached_count]
        if found.source or not found.cached_count:
            self.check_choice(found.slot, [slot for slot in idle if slot is not found.source], warm)
        owner = RowOwner(found.slot, (steering, self.epoch), prompt, token_keys=token_keys[: found.cached_count])
        owner.fed = [(owner.steering, tuple(token_keys[: end + 1]), True) for end in range(found.cached_count)]
        self.owners.append(owner)
        self.touch(found.slot)

    def longest(self, steering: str, token_keys: list[int]) -> int:
        """The longest reusable prefix that a row holds under the same steering."""
        best = 0
        for slot in self.slots:
            if slot.steering != steering:
                continue  # the allocator does not reuse tokens from before a change of steering
            held = self.cells[slot.row][: slot.finite_count]
            common = 0
            while common < min(len(held), len(token_keys)):
                if held[common] != ((steering, self.epoch), tuple(token_keys[: common + 1]), True):
                    break
                common += 1
            best = max(best, common)
        return best if best >= MIN_REUSED_PREFIX else 0

    def check_choice(self, chosen: Slot, idle: list[Slot], warm: dict[Slot, bool]) -> None:
        """An empty row before a warm one; of those, the least recently used."""
        empty = [slot for slot in idle if not warm[slot]]
        assert self.used.get(chosen, 0) == min(self.used.get(slot, 0) for slot in empty or idle)
        assert not empty or chosen in empty

    @precondition(lambda self: self.owners)
    @rule(index=st.integers(0), count=st.integers(1, 12))
    def feed_prompt(self, index: int, count: int) -> None:
        owner = self.owners[index % len(self.owners)]
        for token in owner.prompt[len(owner.token_keys) :][:count]:
            self.feed(owner, token)
        if len(owner.token_keys) == len(owner.prompt):
            self.settle(owner)
            if not owner.decodes:
                self.slots.move_to_decoding(owner.slot)
                owner.decodes = True

    @rule(count=st.integers(1, 3))
    def step(self, count: int) -> None:
        """One token of each decoding sequence, `count` times."""
        for owner in [owner for owner in self.owners if owner.decodes] * count:
            self.feed(owner, 200)
            self.settle(owner)

    def feed(self, owner: RowOwner, token: int) -> None:
        owner.token_keys.append(token_key(token, bool(owner.steering)))
        owner.token_keys[-1] = token_key(token, self.is_steered(owner))
        owner.fed.append((owner.steering, tuple(owner.token_keys), owner.is_sound))
        owner.slot.token_keys.append(owner.token_keys[-1])
        owner.slot.written_count = len(owner.token_keys)
        self.cells[owner.slot.row][len(owner.token_keys) - 1 :] = [owner.fed[-1]]

    @staticmethod
    def is_steered(owner: RowOwner) -> bool:
        return isinstance(owner.steering, tuple) and owner.steering[0] == "push"

    def settle(self, owner: RowOwner) -> None:
        if owner.is_sound:
            owner.slot.finite_count = len(owner.slot.token_keys)

    @precondition(lambda self: self.owners)
    @rule(index=st.integers(0))
    def release(self, index: int) -> None:
        owner = self.owners.pop(index % len(self.owners))
        slot = owner.slot
        del self.cells[slot.row][slot.finite_count :]
        self.slots.release(slot)
        self.touch(slot)

    @precondition(lambda self: self.owners)
    @rule(index=st.integers(0))
    def overflow(self, index: int) -> None:
        self.owners[index % len(self.owners)].is_sound = False

    @precondition(lambda self: self.owners)
    @rule(index=st.integers(0))
    def change_steering(self, index: int) -> None:
        owner = self.owners[index % len(self.owners)]
        owner.steering = owner.slot.steering = object()

    @rule()
    def forget(self) -> None:
        self.slots.invalidate()
        self.epoch += 1
        for owner in self.owners:
            owner.steering = owner.slot.steering

    @rule(rows=st.integers(1, 6), length=st.integers(1, 40))
    def resize(self, rows: int, length: int) -> None:
        rows = max(rows, len(self.owners))
        length = max([length, *(len(owner.token_keys) for owner in self.owners)])
        self.slots.resize(rows, length)
        retained = [self.cells[slot.row][: slot.written_count] for slot in list(self.slots)[: len(self.cells)]]
        self.cells = retained + [[] for _ in range(rows - len(retained))]
        assert len(self.slots) == len(self.cells) == rows

    @invariant()
    def rows_are_numbered(self) -> None:
        assert [slot.row for slot in self.slots] == list(range(len(self.cells)))
        assert {owner.slot for owner in self.owners} == set(self.slots.busy_slots)
        assert len({owner.slot for owner in self.owners}) == len(self.owners)

    @invariant()
    def decoding_rows_are_the_first(self) -> None:
        decoding = sorted(owner.slot.row for owner in self.owners if owner.decodes)
        assert decoding == list(range(len(decoding)))

    @invariant()
    def rows_hold_what_their_sequences_fed(self) -> None:
        for owner in self.owners:
            assert self.cells[owner.slot.row][: len(owner.fed)] == owner.fed
            assert owner.slot.token_keys == owner.token_keys

    @invariant()
    def idle_columns_are_finite(self) -> None:
        for slot in self.slots:
            finite = self.cells[slot.row][: slot.finite_count] if slot.is_busy else self.cells[slot.row]
            assert all(is_finite for _, _, is_finite in finite)


TestRows = pytest.mark.filterwarnings("default")(Rows.TestCase)
TestRows.settings = settings(max_examples=200, stateful_step_count=40, deadline=None)


def test_long_prefix_is_preserved_while_a_row_is_free() -> None:
    """The prompt gets a copy; the donor's longer prefix stays."""
    slots = SlotAllocator(2, lambda *_: None)
    first = slots.allocate("", ()).slot
    first.token_keys, first.finite_count, first.written_count = list(range(100)), 100, 100
    first.prefix_state = "what was done"
    slots.release(first)
    found = slots.allocate("", [*range(20), 500])
    assert (found.slot.row, found.source, found.cached_count, found.prefix_state) == (1, first, 20, "what was done")
    slots.release(found.slot)
    again = slots.allocate("", list(range(100)))
    assert (again.slot, again.source, again.cached_count) == (first, None, 100)


@pytest.mark.parametrize("steered", [False, True])
def test_steered_tokens_have_other_keys(steered: bool) -> None:
    slots = SlotAllocator(2, lambda *_: None)
    slot = slots.allocate("push", ()).slot
    slot.token_keys = [token_key(token, False) for token in range(10)] + [
        token_key(token, steered) for token in range(10, 20)
    ]
    slot.finite_count = slot.written_count = 20
    slots.release(slot)
    found = slots.allocate("push", [token_key(token, False) for token in range(20)])
    assert found.cached_count == (10 if steered else 20)
