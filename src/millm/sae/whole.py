"""The whole dictionary at some tokens of a pass: the largest activations, and those of SAEs that rank their features.

Every token is encoded once, whatever is wanted of it; tokens that are not asked for cost nothing.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from millm.sae.autoencoder import SparseAutoencoder

TOKENS_AT_ONCE = 32
"""Bounds memory: 32 tokens × 1M features × 4 bytes = 128 MB."""


@dataclass(frozen=True)
class WholeReading:
    """Zero at the tokens that were not read."""

    named: Tensor  # [B, T, K] activations of the features asked for by name
    top_values: Tensor  # [B, T, k], largest first
    top_indices: Tensor  # [B, T, k]

    def where(self, rows: Tensor, other: "WholeReading") -> "WholeReading":
        """This one's numbers for the `rows [B, 1, 1]` that are true, the other's for the rest."""
        return WholeReading(
            torch.where(rows, self.named, other.named),
            torch.where(rows, self.top_values, other.top_values),
            torch.where(rows, self.top_indices, other.top_indices),
        )


def read_whole(sae: SparseAutoencoder, x: Tensor, at: Tensor, features: Tensor, top_k: int) -> WholeReading:
    """Of x [B, T, d], at tokens `at [N]` (b·T + t): `features [B, K]` and the `top_k` largest, in residual units."""
    shape = x.shape[:2]
    rows, ids = x.flatten(0, 1)[at], features[at // shape[1]]  # [N, d], [N, K]
    chunks = zip(torch.split(rows, TOKENS_AT_ONCE), torch.split(ids, TOKENS_AT_ONCE), strict=True)
    found = zip(*(_read(sae, some, named, top_k) for some, named in chunks), strict=True)
    return WholeReading(*(_put(torch.cat(parts), at, shape) for parts in found))


def _read(sae: SparseAutoencoder, x: Tensor, ids: Tensor, top_k: int) -> tuple[Tensor, Tensor, Tensor]:
    every = sae.activations(x)  # [N, F]
    top = every.topk(top_k, dim=-1)
    return every.gather(-1, ids), top.values, top.indices


def _put(found: Tensor, at: Tensor, shape: torch.Size) -> Tensor:
    """found [N, w] → [B, T, w], each row in its token's place."""
    placed = found.new_zeros(shape.numel(), found.shape[-1])
    placed[at] = found
    return placed.view(*shape, found.shape[-1])
