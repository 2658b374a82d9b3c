"""`with watching(model, sae, features=[135]) as seen:` what features did at every token of the last batch."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from transformers import PreTrainedModel

from millm.engine.messages import Watch
from millm.notebook.asked import checked, listed
from millm.notebook.feed import PADDING, Feed
from millm.notebook.fitting import fit
from millm.notebook.sae import SAE
from millm.notebook.session import opened
from millm.notebook.use import Use
from millm.profiles.contract import ActivationsRequest
from millm.sae.tap_step import Span, TapOutput, asked

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
class _Reading:
    token: int | None
    values: Tensor  # [K]
    top_features: Tensor  # [k]
    top_activations: Tensor  # [k]


class Seen(Sequence[Row]):
    """The rows of the last batch, as far as it has come; a new sequence begins anew."""

    def __init__(self, request: ActivationsRequest) -> None:
        self._request = request
        self._rows: list[dict[int, _Reading]] = []
        """By position: a pass that is run again overwrites."""

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> Row:  # type: ignore[override]  # no slices: a row is a text
        found = sorted(self._rows[index].items())
        readings = [reading for _, reading in found]
        return Row(
            tokens=[reading.token for reading in readings],
            positions=[position for position, _ in found],
            activations=_stacked([reading.values for reading in readings], len(self._request.features)),
            top_features=_stacked([reading.top_features for reading in readings], self._request.top_k).long(),
            top_activations=_stacked([reading.top_activations for reading in readings], self._request.top_k),
        )

    def begin(self, rows: int) -> None:
        self._rows = [{} for _ in range(rows)]

    def hear(self, feed: Feed, prompt: list[int], _keep: list[list[bool]], output: TapOutput) -> None:
        if len(self._rows) != len(feed.positions):
            self.begin(len(feed.positions))
        values = _there(output.watched, feed, len(self._request.features))
        top_features = _there(output.top_indices, feed, self._request.top_k)
        top_activations = _there(output.top_values, feed, self._request.top_k)
        for row, positions in enumerate(feed.positions):
            for offset in self._asked(feed, row, prompt[row]):
                if positions[offset] != PADDING:
                    self._rows[row][positions[offset]] = _Reading(
                        token=feed.ids[row][offset] if feed.ids else None,
                        values=values[row, offset],
                        top_features=top_features[row, offset],
                        top_activations=top_activations[row, offset],
                    )

    def _asked(self, feed: Feed, row: int, prompt: int) -> list[int]:
        span = Span(feed.starts[row], feed.width, prompt)
        return asked(Watch(sae="", tokens=self._request.tokens), span)


def _there(table: Tensor | None, feed: Feed, width: int) -> Tensor:
    """[B, T, ≥ width] on the device → [B, T, width] here."""
    if table is None:
        return torch.zeros(len(feed.positions), feed.width, width)
    return table[..., :width].detach().cpu()


def _stacked(rows: list[Tensor], width: int) -> Tensor:
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
    given = {"features": listed(features), "top_k": top_k, "tokens": tokens, "when": when}
    request = checked(ActivationsRequest, given)
    seen = Seen(request)
    with opened(Use(model, sae, fit(model, sae), seen, watch=request)):
        yield seen
