"""One `with` block: which SAE is used where, what it is asked to do, and who is told what was done."""

from dataclasses import dataclass, field
from typing import Protocol

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from millm.notebook.feed import ForwardInput
from millm.notebook.sae import SAE
from millm.profiles.schema import ActivationsRequest, SteeringRequest
from millm.sae.hook_step import HookOutput
from millm.sae.hooks import HookPoint


class PassObserver(Protocol):
    """Hears of every pass that the block's SAE was part of."""

    def start_batch(self, rows: int) -> None:
        """Other sequences from here on."""

    def record_pass(
        self, forward_input: ForwardInput, prompt_lengths: list[int], steer_mask: list[list[bool]], output: HookOutput
    ) -> None:
        """`prompt`: tokens of each row's; `keep`: where the steering applied."""


@dataclass(frozen=True, eq=False)
class SteeringBlock:
    model: PreTrainedModel
    sae: SAE
    point: HookPoint
    observer: PassObserver
    steering: SteeringRequest | None = None
    watch: ActivationsRequest | None = None
    special_ids: frozenset[int] = field(default=frozenset())

    @property
    def name(self) -> str:
        """What refusals call the SAE: two on two layers may have one name."""
        return f"{self.sae.name} at {self.point.name}"


def special_token_ids(tokenizer: PreTrainedTokenizerBase | None) -> frozenset[int]:
    """Ids that yield no text."""
    if tokenizer is None:
        return frozenset()
    return frozenset(id for id, token in tokenizer.added_tokens_decoder.items() if token.special)
