"""Who has which row of the cache, and what the rows that nobody has still remember.

Rows 0..decoding−1 belong to the sequences that decode, so that one pass takes them as neighbours. A row whose
sequence is done stays warm: the next prompt that begins with the same tokens under the same steering goes on from it.
Knows nothing about tensors: whoever asks moves the contents.
"""

import itertools
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field

WORTH_REUSING = 8
"""Shorter common prefixes are computed anew."""


@dataclass(eq=False)
class Slot:
    """One row, and what its keys and values were computed from."""

    row: int
    steering: Hashable = None
    codes: list[int] = field(default_factory=list)
    """Of the tokens that were fed (`code`)."""
    safe: int = 0
    """How many of them are known to have left finite keys and values; the rest is never gone on from."""
    written: int = 0
    """Columns that hold anything, known to be finite or not."""
    trail: object = None
    """What its owner wants back along with a reused prefix."""
    busy: bool = False
    used: int = 0
    """When it was last given out or back."""


@dataclass(frozen=True)
class Placement:
    """Where a prompt begins: behind the first `cached` tokens, which are there or to be copied from `source`."""

    slot: Slot
    cached: int = 0
    source: Slot | None = None
    trail: object = None


def code(token: int, steered: bool) -> int:
    """Keys and values behind a steered token differ from those behind the same token left alone."""
    return 2 * token + steered


class Slots:
    def __init__(self, rows: int, swap: Callable[[Slot, Slot], None]) -> None:
        """`swap` exchanges what two rows hold; it is called before their numbers change."""
        self._slots = [Slot(row) for row in range(rows)]
        self._swap = swap
        self._clock = itertools.count(1)
        self._decoding = 0

    def __len__(self) -> int:
        return len(self._slots)

    def __getitem__(self, row: int) -> Slot:
        return self._slots[row]

    @property
    def busy(self) -> list[Slot]:
        return [slot for slot in self._slots if slot.busy]

    def place(self, steering: Hashable, codes: Sequence[int]) -> Placement:
        """A row for a prompt; `codes` is what may be reused of it (of all its tokens but the last, at most)."""
        donor, cached = self._longest(steering, codes)
        spare = self._oldest_idle(but=donor)
        if donor and not donor.busy and _goes_on_in_place(donor, cached, spare):
            trail = donor.trail
            self._take(donor, steering, codes[:cached])
            return Placement(donor, cached, None, trail)
        assert spare is not None, "more sequences than rows"
        self._take(spare, steering, codes[:cached])
        return Placement(spare, cached, donor, donor.trail if donor else None)

    def decode(self, slot: Slot) -> None:
        """The slot's sequence has its prompt behind it: its row becomes the next of the decoding ones."""
        self._exchange(slot, self._slots[self._decoding])
        self._decoding += 1

    def release(self, slot: Slot) -> None:
        """The row is warm from here on, and the decoding ones close up."""
        slot.busy = False
        slot.used = next(self._clock)
        del slot.codes[slot.safe :]
        slot.written = slot.safe
        if slot.row < self._decoding:
            self._decoding -= 1
            self._exchange(slot, self._slots[self._decoding])

    def resize(self, rows: int, length: int) -> None:
        """Other bounds; rows in use are kept, at the front, and warm ones as far as they go."""
        front = self._decoding
        for slot in self.busy:
            if slot.row >= self._decoding:
                self._exchange(slot, self._slots[front])
                front += 1
        del self._slots[rows:]
        for slot in self._slots:
            del slot.codes[length:]
            slot.safe, slot.written = min(slot.safe, length), min(slot.written, length)
        self._slots += [Slot(row) for row in range(len(self._slots), rows)]

    def forget(self) -> None:
        """Nothing that was computed until now can be gone on from."""
        for slot in self._slots:
            slot.steering = object()

    def _take(self, slot: Slot, steering: Hashable, codes: Sequence[int]) -> None:
        slot.steering, slot.codes, slot.trail = steering, list(codes), None
        slot.safe = slot.written = len(codes)
        slot.busy, slot.used = True, next(self._clock)

    def _longest(self, steering: Hashable, codes: Sequence[int]) -> tuple[Slot | None, int]:
        best, most = None, WORTH_REUSING - 1
        for slot in self._slots:
            if slot.safe > most and slot.steering == steering:
                common = _common(slot.codes[: slot.safe], list(codes))
                if common > most:
                    best, most = slot, common
        return best, most if best else 0

    def _oldest_idle(self, *, but: Slot | None) -> Slot | None:
        """An empty row before a warm one."""
        idle = [slot for slot in self._slots if not slot.busy and slot is not but]
        return min(idle, key=lambda slot: (slot.safe > 0, slot.used), default=None)

    def _exchange(self, one: Slot, other: Slot) -> None:
        if one is not other:
            self._swap(one, other)
            one.row, other.row = other.row, one.row
            self._slots[one.row], self._slots[other.row] = one, other


def _goes_on_in_place(donor: Slot, cached: int, spare: Slot | None) -> bool:
    """A copy keeps what the donor has beyond the prefix, at the price of what the spare row remembers."""
    if spare is None or cached == donor.safe:
        return True
    return spare.safe > 0 and 2 * cached >= donor.safe


def _common(one: list[int], other: list[int]) -> int:
    """Length of the common prefix, by halves: comparing slices is much faster than a loop over tokens."""
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        if one[low:middle] == other[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low
