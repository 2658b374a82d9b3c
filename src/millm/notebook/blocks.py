"""`with watching(model, sae, features=[135]) as seen:` what features did at every token of the last batch.

`with steered(model, sae, {135: 60.0}):` the model is pushed inside the block, and itself again behind it.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from millm.notebook.hooks import (
    PADDING,
    Features,
    ForwardInput,
    SteeringBlock,
    as_list,
    find_sae_hook_point,
    parse_steering,
    special_token_ids,
    validate,
)
from millm.notebook.sae import SAE
from millm.notebook.session import open_block
from millm.profiles.schema import ActivationsRequest
from millm.sae.hook_step import HookOutput, TokenSpan, offsets_to_watch
from millm.sae.steering import Positions, Skip, Watch


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


Tokens = Literal["generated", "prompt", "all"]
When = Literal["before", "after"]


@dataclass(frozen=True)
class Row:
    """One text of the batch: T tokens that were asked for, in order, without padding."""

    tokens: list[int | None]
    """Their ids; None where the model was given embeddings."""
    positions: list[int]
    """In prompt + completion."""
    activations: Tensor
    """[T, features asked for], float32 on the CPU, in units of the residual stream."""
    top_features: Tensor
    """[T, top_k], the most active first."""
    top_activations: Tensor
    """[T, top_k]"""


@dataclass(frozen=True)
class _TokenReading:
    token: int | None
    values: Tensor  # [K]
    top_features: Tensor  # [k]
    top_activations: Tensor  # [k]


class Seen(Sequence[Row]):
    """The rows of the last batch, as far as it has come; a new sequence begins anew."""

    def __init__(self, request: ActivationsRequest) -> None:
        self._request = request
        self._rows: list[dict[int, _TokenReading]] = []
        """By position: a pass that is run again overwrites."""

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> Row:  # type: ignore[override]  # no slices: a row is a text
        found = sorted(self._rows[index].items())
        readings = [reading for _, reading in found]
        return Row(
            tokens=[reading.token for reading in readings],
            positions=[position for position, _ in found],
            activations=_stack([reading.values for reading in readings], len(self._request.features)),
            top_features=_stack([reading.top_features for reading in readings], self._request.top_k).long(),
            top_activations=_stack([reading.top_activations for reading in readings], self._request.top_k),
        )

    def start_batch(self, rows: int) -> None:
        self._rows = [{} for _ in range(rows)]

    def record_pass(
        self, forward_input: ForwardInput, prompt_lengths: list[int], _steer_mask: list[list[bool]], output: HookOutput
    ) -> None:
        if len(self._rows) != len(forward_input.positions):
            self.start_batch(len(forward_input.positions))
        values = _to_cpu(output.watched, forward_input, len(self._request.features))
        top_features = _to_cpu(output.top_indices, forward_input, self._request.top_k)
        top_activations = _to_cpu(output.top_values, forward_input, self._request.top_k)
        for row, positions in enumerate(forward_input.positions):
            for offset in self._watched_offsets(forward_input, row, prompt_lengths[row]):
                if positions[offset] != PADDING:
                    self._rows[row][positions[offset]] = _TokenReading(
                        token=forward_input.ids[row][offset] if forward_input.ids else None,
                        values=values[row, offset],
                        top_features=top_features[row, offset],
                        top_activations=top_activations[row, offset],
                    )

    def _watched_offsets(self, forward_input: ForwardInput, row: int, prompt_length: int) -> list[int]:
        span = TokenSpan(forward_input.start_positions[row], forward_input.width, prompt_length)
        return offsets_to_watch(Watch(sae="", tokens=self._request.tokens), span)


def _to_cpu(table: Tensor | None, forward_input: ForwardInput, width: int) -> Tensor:
    """[B, T, ≥ width] on the device → [B, T, width] here."""
    if table is None:
        return torch.zeros(len(forward_input.positions), forward_input.width, width)
    return table[..., :width].detach().cpu()


def _stack(rows: list[Tensor], width: int) -> Tensor:
    return torch.stack(rows) if rows else torch.zeros(0, width)


@contextmanager
def watching(
    model: PreTrainedModel,
    sae: SAE,
    features: Sequence[int] = (),
    *,
    top_k: int = 0,
    tokens: Tokens = "all",
    when: When = "before",
) -> Iterator[Seen]:
    """See what `features` do at each token that goes through the model, and the `top_k` most active of all.

    `when`: before the steering of this hook, or after it. The last token of `generate` is never fed back, so it is not
    there. Raises InvalidSteering, SaeMismatch, SaeModelMismatch or InvalidSae, before anything is changed.
    """
    given = {"features": as_list(features), "top_k": top_k, "tokens": tokens, "when": when}
    request = validate(ActivationsRequest, given)
    seen = Seen(request)
    with open_block(SteeringBlock(model, sae, find_sae_hook_point(model, sae), seen, watch=request)):
        yield seen
