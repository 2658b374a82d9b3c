"""Who has which row of the cache, and what the rows that nobody has still remember.

Rows 0..decoding−1 belong to the sequences that decode, so that one pass takes them as neighbours. A row whose
sequence is done stays warm: the next prompt that begins with the same tokens under the same steering goes on from it.
Knows nothing about tensors: whoever asks moves the contents.
"""

import itertools
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field

MIN_REUSED_PREFIX = 8
"""Shorter common prefixes are computed anew."""


@dataclass(eq=False)
class Slot:
    """One row, and what its keys and values were computed from."""

    row: int
    steering: Hashable = None
    token_keys: list[int] = field(default_factory=list)
    """Of the tokens that were fed (`code`)."""
    finite_count: int = 0
    """How many of them are known to have left finite keys and values; the rest is never gone on from."""
    written_count: int = 0
    """Columns that hold anything, known to be finite or not."""
    trail: object = None
    """What its owner wants back along with a reused prefix."""
    is_busy: bool = False
    last_used: int = 0
    """When it was last given out or back."""


@dataclass(frozen=True)
class SlotAllocation:
    """Where a prompt begins: behind the first `cached` tokens, which are there or to be copied from `source`."""

    slot: Slot
    cached_count: int = 0
    source: Slot | None = None
    prefix_state: object = None


def token_key(token: int, is_steered: bool) -> int:
    """Keys and values behind a steered token differ from those behind the same token left alone."""
    return 2 * token + is_steered


class SlotAllocator:
    def __init__(self, rows: int, swap: Callable[[Slot, Slot], None]) -> None:
        """`swap` exchanges what two rows hold; it is called before their numbers change."""
        self._slots = [Slot(row) for row in range(rows)]
        self._swap = swap
        self._clock = itertools.count(1)
        self._decoding_count = 0

    def __len__(self) -> int:
        return len(self._slots)

    def __getitem__(self, row: int) -> Slot:
        return self._slots[row]

    @property
    def busy_slots(self) -> list[Slot]:
        return [slot for slot in self._slots if slot.is_busy]

    def allocate(self, steering: Hashable, token_keys: Sequence[int]) -> SlotAllocation:
        """A row for a prompt; `codes` is what may be reused of it (of all its tokens but the last, at most)."""
        donor, cached = self._longest_prefix(steering, token_keys)
        spare = self._oldest_idle(exclude=donor)
        if donor and not donor.is_busy and _should_reuse_in_place(donor, cached, spare):
            trail = donor.trail
            self._take(donor, steering, token_keys[:cached])
            return SlotAllocation(donor, cached, None, trail)
        assert spare is not None, "more sequences than rows"
        self._take(spare, steering, token_keys[:cached])
        return SlotAllocation(spare, cached, donor, donor.trail if donor else None)

    def move_to_decoding(self, slot: Slot) -> None:
        """The slot's sequence has its prompt behind it: its row becomes the next of the decoding ones."""
        self._exchange(slot, self._slots[self._decoding_count])
        self._decoding_count += 1

    def release(self, slot: Slot) -> None:
        """The row is warm from here on, and the decoding ones close up."""
        slot.is_busy = False
        slot.last_used = next(self._clock)
        del slot.token_keys[slot.finite_count :]
        slot.written_count = slot.finite_count
        if slot.row < self._decoding_count:
            self._decoding_count -= 1
            self._exchange(slot, self._slots[self._decoding_count])

    def resize(self, rows: int, length: int) -> None:
        """Other bounds; rows in use are kept, at the front, and warm ones as far as they go."""
        front = self._decoding_count
        for slot in self.busy_slots:
            if slot.row >= self._decoding_count:
                self._exchange(slot, self._slots[front])
                front += 1
        del self._slots[rows:]
        for slot in self._slots:
            del slot.token_keys[length:]
            slot.finite_count, slot.written_count = min(slot.finite_count, length), min(slot.written_count, length)
        self._slots += [Slot(row) for row in range(len(self._slots), rows)]

    def invalidate(self) -> None:
        """Nothing that was computed until now can be gone on from."""
        for slot in self._slots:
            slot.steering = object()

    def _take(self, slot: Slot, steering: Hashable, token_keys: Sequence[int]) -> None:
        slot.steering, slot.token_keys, slot.trail = steering, list(token_keys), None
        slot.finite_count = slot.written_count = len(token_keys)
        slot.is_busy, slot.last_used = True, next(self._clock)

    def _longest_prefix(self, steering: Hashable, token_keys: Sequence[int]) -> tuple[Slot | None, int]:
        best, most = None, MIN_REUSED_PREFIX - 1
        for slot in self._slots:
            if slot.finite_count > most and slot.steering == steering:
                common = _common_prefix_length(slot.token_keys[: slot.finite_count], list(token_keys))
                if common > most:
                    best, most = slot, common
        return best, most if best else 0

    def _oldest_idle(self, *, exclude: Slot | None) -> Slot | None:
        """An empty row before a warm one."""
        idle = [slot for slot in self._slots if not slot.is_busy and slot is not exclude]
        return min(idle, key=lambda slot: (slot.finite_count > 0, slot.last_used), default=None)

    def _exchange(self, one: Slot, other: Slot) -> None:
        if one is not other:
            self._swap(one, other)
            one.row, other.row = other.row, one.row
            self._slots[one.row], self._slots[other.row] = one, other


def _should_reuse_in_place(donor: Slot, cached_count: int, spare: Slot | None) -> bool:
    """A copy keeps what the donor has beyond the prefix, at the price of what the spare row remembers."""
    if spare is None or cached_count == donor.finite_count:
        return True
    return spare.finite_count > 0 and 2 * cached_count >= donor.finite_count


def _common_prefix_length(one: list[int], other: list[int]) -> int:
    """Length of the common prefix, by halves: comparing slices is much faster than a loop over tokens."""
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        if one[low:middle] == other[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low
