"""What the loop asks of a runner: the model's forward passes, and the keys and values behind them."""

from typing import Protocol

from torch import Tensor

from millm.engine.scheduler import ForwardPass
from millm.engine.sequence import Sequence


class Runner(Protocol):
    capacity: int
    """Sequences that may run at once."""
    prefill_chunk: int | None
    """Tokens of prompts per step; None: a prompt is fed whole."""
    kv_cache_bytes: int
    """Most that it holds of keys and values; 0: whatever one sequence needs."""

    def runs_alone(self, sequence: Sequence) -> bool:
        """Must this one go through the model by itself, its prompt whole?"""

    def fits(self, sequence: Sequence) -> bool:
        """Is there memory for the keys and values it may come to have?"""

    def allocate(self, sequence: Sequence, *, reuse: bool) -> object:
        """Room for its keys and values; sets `fed` to what is there already, → the trail of who computed that.

        Raises torch.OutOfMemoryError, and then nothing has changed.
        """

    def sort_rows(self, rows: ForwardPass) -> ForwardPass:
        """The rows of a pass in the order in which `run` takes them."""

    def run(self, rows: ForwardPass) -> Tensor:
        """Feed the rows of one pass; → logits of their last tokens `[rows, 1, V]`, or of all where one is scored.

        What it raises changed nothing.
        """

    def recover(self, sequence: Sequence) -> None:
        """A pass with this sequence failed: make it fit to be run again."""

    def commit(self, sequence: Sequence) -> None:
        """A token was chosen from finite logits."""

    def store_prefix_state(self, sequence: Sequence, prefix_state: object) -> None:
        """What `place` is to hand to whoever goes on from this sequence's prefix."""

    def on_steering_change(self, sequence: Sequence) -> None:
        """The sequence's steering changes from here on."""

    def release(self, sequence: Sequence) -> None:
        """The sequence is over, or has to begin again."""

    def invalidate_cache(self) -> None:
        """What the model computes changes from here on: nothing of before is gone on from."""
