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
class Tenant:
    """A sequence that has a row, as its runner sees it."""

    slot: Slot
    steering: object
    prompt: tuple[int, ...]
    fed: list[Cell] = field(default_factory=list)
    codes: list[int] = field(default_factory=list)
    decodes: bool = False
    is_sound: bool = True
    """False: its next keys and values are not finite."""


class Rows(RuleBasedStateMachine):
    """`cells` models the memory; only copy, swap and resize move contents."""

    @initialize(rows=st.integers(1, 5))
    def begin(self, rows: int) -> None:
        self.cells: list[list[Cell]] = [[] for _ in range(rows)]
        self.slots = SlotAllocator(rows, self.swap)
        self.tenants: list[Tenant] = []
        self.used: dict[Slot, int] = {}
        self.clock = 0
        self.epoch = 0

    def swap(self, one: Slot, other: Slot) -> None:
        self.cells[one.row], self.cells[other.row] = self.cells[other.row], self.cells[one.row]

    def touch(self, slot: Slot) -> None:
        self.clock += 1
        self.used[slot] = self.clock

    @precondition(lambda self: len(self.tenants) < len(self.slots))
    @rule(prompt=st.sampled_from(PROMPTS), steering=st.sampled_from(STEERINGS))
    def place(self, prompt: tuple[int, ...], steering: str) -> None:
        codes = [token_key(token, bool(steering)) for token in prompt[:-1]]
        idle = [slot for slot in self.slots if not slot.is_busy]
        longest = self.longest(steering, codes)
        warm = {slot: slot.finite_count > 0 for slot in idle}
        found = self.slots.allocate(steering, codes)
        assert found.slot in idle
        assert found.slot.is_busy
        assert found.cached_count == longest
        if found.source:
            assert found.source is not found.slot
            self.cells[found.slot.row][: found.cached_count] = self.cells[found.source.row][: found.cached_count]
        if found.source or not found.cached_count:
            self.check_choice(found.slot, [slot for slot in idle if slot is not found.source], warm)
        tenant = Tenant(found.slot, (steering, self.epoch), prompt, codes=codes[: found.cached_count])
        tenant.fed = [(tenant.steering, tuple(codes[: end + 1]), True) for end in range(found.cached_count)]
        self.tenants.append(tenant)
        self.touch(found.slot)

    def longest(self, steering: str, codes: list[int]) -> int:
        """The longest reusable prefix that a row holds under the same steering."""
        best = 0
        for slot in self.slots:
            if slot.steering != steering:
                continue  # what was computed before its steering changed would do; nobody asks that closely
            held = self.cells[slot.row][: slot.finite_count]
            common = 0
            while common < min(len(held), len(codes)):
                if held[common] != ((steering, self.epoch), tuple(codes[: common + 1]), True):
                    break
                common += 1
            best = max(best, common)
        return best if best >= MIN_REUSED_PREFIX else 0

    def check_choice(self, chosen: Slot, idle: list[Slot], warm: dict[Slot, bool]) -> None:
        """An empty row before a warm one; of those, the least recently used."""
        empty = [slot for slot in idle if not warm[slot]]
        assert self.used.get(chosen, 0) == min(self.used.get(slot, 0) for slot in empty or idle)
        assert not empty or chosen in empty

    @precondition(lambda self: self.tenants)
    @rule(who=st.integers(0), count=st.integers(1, 12))
    def feed_prompt(self, who: int, count: int) -> None:
        tenant = self.tenants[who % len(self.tenants)]
        for token in tenant.prompt[len(tenant.codes) :][:count]:
            self.feed(tenant, token)
        if len(tenant.codes) == len(tenant.prompt):
            self.settle(tenant)
            if not tenant.decodes:
                self.slots.move_to_decoding(tenant.slot)
                tenant.decodes = True

    @rule(count=st.integers(1, 3))
    def step(self, count: int) -> None:
        """One token of each decoding sequence, `count` times."""
        for tenant in [tenant for tenant in self.tenants if tenant.decodes] * count:
            self.feed(tenant, 200)
            self.settle(tenant)

    def feed(self, tenant: Tenant, token: int) -> None:
        tenant.codes.append(token_key(token, bool(tenant.steering)))
        tenant.codes[-1] = token_key(token, self.is_steered(tenant))
        tenant.fed.append((tenant.steering, tuple(tenant.codes), tenant.is_sound))
        tenant.slot.token_keys.append(tenant.codes[-1])
        tenant.slot.written_count = len(tenant.codes)
        self.cells[tenant.slot.row][len(tenant.codes) - 1 :] = [tenant.fed[-1]]

    @staticmethod
    def is_steered(tenant: Tenant) -> bool:
        return isinstance(tenant.steering, tuple) and tenant.steering[0] == "push"

    def settle(self, tenant: Tenant) -> None:
        if tenant.is_sound:
            tenant.slot.finite_count = len(tenant.slot.token_keys)

    @precondition(lambda self: self.tenants)
    @rule(who=st.integers(0))
    def release(self, who: int) -> None:
        tenant = self.tenants.pop(who % len(self.tenants))
        slot = tenant.slot
        del self.cells[slot.row][slot.finite_count :]
        self.slots.release(slot)
        self.touch(slot)

    @precondition(lambda self: self.tenants)
    @rule(who=st.integers(0))
    def overflow(self, who: int) -> None:
        self.tenants[who % len(self.tenants)].is_sound = False

    @precondition(lambda self: self.tenants)
    @rule(who=st.integers(0))
    def change_steering(self, who: int) -> None:
        tenant = self.tenants[who % len(self.tenants)]
        tenant.steering = tenant.slot.steering = object()

    @rule()
    def forget(self) -> None:
        self.slots.invalidate()
        self.epoch += 1
        for tenant in self.tenants:
            tenant.steering = tenant.slot.steering

    @rule(rows=st.integers(1, 6), length=st.integers(1, 40))
    def resize(self, rows: int, length: int) -> None:
        rows = max(rows, len(self.tenants))
        length = max([length, *(len(tenant.codes) for tenant in self.tenants)])
        self.slots.resize(rows, length)
        retained = [self.cells[slot.row][: slot.written_count] for slot in list(self.slots)[: len(self.cells)]]
        self.cells = retained + [[] for _ in range(rows - len(retained))]
        assert len(self.slots) == len(self.cells) == rows

    @invariant()
    def rows_are_numbered(self) -> None:
        assert [slot.row for slot in self.slots] == list(range(len(self.cells)))
        assert {tenant.slot for tenant in self.tenants} == set(self.slots.busy_slots)
        assert len({tenant.slot for tenant in self.tenants}) == len(self.tenants)

    @invariant()
    def decoding_rows_are_the_first(self) -> None:
        decoding = sorted(tenant.slot.row for tenant in self.tenants if tenant.decodes)
        assert decoding == list(range(len(decoding)))

    @invariant()
    def what_a_tenant_fed_is_in_its_row(self) -> None:
        for tenant in self.tenants:
            assert self.cells[tenant.slot.row][: len(tenant.fed)] == tenant.fed
            assert tenant.slot.token_keys == tenant.codes

    @invariant()
    def what_nobody_has_is_finite(self) -> None:
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
