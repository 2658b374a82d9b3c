"""One `with` block: which SAE is used where, what it is asked to do, and who is told what was done."""

from dataclasses import dataclass, field
from typing import Protocol

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from millm.notebook.feed import Feed
from millm.notebook.sae import SAE
from millm.profiles.contract import ActivationsRequest, SteeringRequest
from millm.sae.hooks import HookPoint
from millm.sae.tap_step import TapOutput


class Listener(Protocol):
    """Hears of every pass that the block's SAE was part of."""

    def begin(self, rows: int) -> None:
        """Other sequences from here on."""

    def hear(self, feed: Feed, prompt: list[int], keep: list[list[bool]], output: TapOutput) -> None:
        """`prompt`: tokens of each row's; `keep`: where the steering applied."""


@dataclass(frozen=True, eq=False)
class Use:
    model: PreTrainedModel
    sae: SAE
    point: HookPoint
    listener: Listener
    steering: SteeringRequest | None = None
    watch: ActivationsRequest | None = None
    special_ids: frozenset[int] = field(default=frozenset())

    @property
    def name(self) -> str:
        """What refusals call the SAE: two on two layers may have one name."""
        return f"{self.sae.name} at {self.point.name}"


def special_ids(tokenizer: PreTrainedTokenizerBase | None) -> frozenset[int]:
    """Ids that yield no text."""
    if tokenizer is None:
        return frozenset()
    return frozenset(id for id, token in tokenizer.added_tokens_decoder.items() if token.special)
