"""What the loop asks of a runner: the model's forward passes, and the keys and values behind them."""

from typing import Protocol

from torch import Tensor

from millm.engine.scheduler import Pass
from millm.engine.sequence import Sequence


class Runner(Protocol):
    capacity: int
    """Sequences that may run at once."""
    chunk: int | None
    """Tokens of prompts per step; None: a prompt is fed whole."""
    kv_bytes: int
    """Most that it holds of keys and values; 0: whatever one sequence needs."""

    def alone(self, sequence: Sequence) -> bool:
        """Must this one go through the model by itself, its prompt whole?"""

    def fits(self, sequence: Sequence) -> bool:
        """Is there memory for the keys and values it may come to have?"""

    def place(self, sequence: Sequence, *, reuse: bool) -> object:
        """Room for its keys and values; sets `fed` to what is there already, → the trail of who computed that.

        Raises torch.OutOfMemoryError, and then nothing has changed.
        """

    def in_order(self, rows: Pass) -> Pass:
        """The rows of a pass in the order in which `run` takes them."""

    def run(self, rows: Pass) -> Tensor:
        """Feed the rows of one pass; → logits of their last tokens `[rows, 1, V]`, or of all where one is scored.

        What it raises changed nothing.
        """

    def recover(self, sequence: Sequence) -> None:
        """A pass with this sequence failed: make it fit to be run again."""

    def settle(self, sequence: Sequence) -> None:
        """A token was chosen from finite logits."""

    def keep(self, sequence: Sequence, trail: object) -> None:
        """What `place` is to hand to whoever goes on from this sequence's prefix."""

    def change(self, sequence: Sequence) -> None:
        """The sequence's steering changes from here on."""

    def release(self, sequence: Sequence) -> None:
        """The sequence is over, or has to begin again."""

    def forget(self) -> None:
        """What the model computes changes from here on: nothing of before is gone on from."""
