"""`with steered(model, sae, {135: 60.0}):` the model is pushed inside the block, and itself again behind it."""

from collections.abc import Iterator
from contextlib import contextmanager

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from millm.notebook.asked import Features, parse_steering
from millm.notebook.feed import ForwardInput
from millm.notebook.fitting import find_sae_hook_point
from millm.notebook.sae import SAE
from millm.notebook.session import open_block
from millm.notebook.use import SteeringBlock, special_token_ids
from millm.sae.hook_step import HookOutput
from millm.sae.steering import Positions, Skip


class Effect:
    """What was done to the last batch: the server's receipt, counted over all its rows."""

    def __init__(self) -> None:
        self._ratios: list[dict[int, float]] = []
        """Per row, by position: ‖delta‖ / ‖x‖ where something was added. Once, also where a pass is run again."""

    @property
    def tokens_steered(self) -> int:
        """Positions at which a delta was added."""
        return sum(map(len, self._ratios))

    @property
    def delta_norm_ratio(self) -> float:
        """Mean of ‖delta‖ / ‖x‖ over them."""
        return sum(sum(row.values()) for row in self._ratios) / max(self.tokens_steered, 1)

    def start_batch(self, rows: int) -> None:
        self._ratios = [{} for _ in range(rows)]

    def record_pass(
        self, forward_input: ForwardInput, _prompt_lengths: list[int], steer_mask: list[list[bool]], output: HookOutput
    ) -> None:
        if output.ratio is None:
            return
        if len(self._ratios) != len(steer_mask):
            self.start_batch(len(steer_mask))
        for known, positions, kept, ratios in zip(
            self._ratios, forward_input.positions, steer_mask, output.ratio.tolist(), strict=True
        ):
            known.update((at, ratio) for at, here, ratio in zip(positions, kept, ratios, strict=True) if here)

    def __repr__(self) -> str:
        return f"Effect(tokens_steered={self.tokens_steered}, delta_norm_ratio={self.delta_norm_ratio:.4f})"


@contextmanager
def steered(
    model: PreTrainedModel,
    sae: SAE,
    features: Features,
    *,
    positions: Positions = "all",
    skip: Skip | None = None,
    tokenizer: PreTrainedTokenizerBase | None = None,
) -> Iterator[Effect]:
    """Steer every pass through `model`, `generate` among them, exactly as the server would (docs/steering.md).

    `features`: `{index: strength}`, or the API's objects with `unit`, `mode` and `max_act`. `positions`, `skip`: as in
    a request; `skip="special"` needs the `tokenizer`. Blocks inside one another, on one SAE or several, add up.
    Raises InvalidSteering, SaeMismatch, SaeModelMismatch or InvalidSae, before anything is changed.
    """
    asked = parse_steering(sae, features, positions=positions, skip=skip)
    effect = Effect()
    use = SteeringBlock(
        model, sae, find_sae_hook_point(model, sae), effect, steering=asked, special_ids=special_token_ids(tokenizer)
    )
    with open_block(use):
        yield effect
