"""The whole dictionary at some tokens of a pass: the largest activations, and those of SAEs that rank their features.

Every token is encoded once, whatever is wanted of it; tokens that are not asked for cost nothing.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from millm.sae.autoencoder import SparseAutoencoder

TOKENS_PER_CHUNK = 32
"""Bounds memory: 32 tokens × 1M features × 4 bytes = 128 MB."""


@dataclass(frozen=True)
class FullReading:
    """Zero at the tokens that were not read."""

    named: Tensor  # [B, T, K] activations of the features asked for by name
    top_values: Tensor  # [B, T, k], largest first
    top_indices: Tensor  # [B, T, k]

    def where(self, rows: Tensor, other: "FullReading") -> "FullReading":
        """This one's numbers for the `rows [B, 1, 1]` that are true, the other's for the rest."""
        return FullReading(
            torch.where(rows, self.named, other.named),
            torch.where(rows, self.top_values, other.top_values),
            torch.where(rows, self.top_indices, other.top_indices),
        )


def read_all_features(
    sae: SparseAutoencoder, x: Tensor, token_indices: Tensor, features: Tensor, top_k: int
) -> FullReading:
    """Of x [B, T, d], at tokens `at [N]` (b·T + t): `features [B, K]` and the `top_k` largest, in residual units."""
    shape = x.shape[:2]
    rows, ids = x.flatten(0, 1)[token_indices], features[token_indices // shape[1]]  # [N, d], [N, K]
    chunks = zip(torch.split(rows, TOKENS_PER_CHUNK), torch.split(ids, TOKENS_PER_CHUNK), strict=True)
    found = zip(*(_read_chunk(sae, some, named, top_k) for some, named in chunks), strict=True)
    return FullReading(*(_scatter_to_tokens(torch.cat(parts), token_indices, shape) for parts in found))


def _read_chunk(sae: SparseAutoencoder, x: Tensor, ids: Tensor, top_k: int) -> tuple[Tensor, Tensor, Tensor]:
    every = sae.activations(x)  # [N, F]
    top = every.topk(top_k, dim=-1)
    return every.gather(-1, ids), top.values, top.indices


def _scatter_to_tokens(values: Tensor, token_indices: Tensor, shape: torch.Size) -> Tensor:
    """found [N, w] → [B, T, w], each row in its token's place."""
    placed = values.new_zeros(shape.numel(), values.shape[-1])
    placed[token_indices] = values
    return placed.view(*shape, values.shape[-1])
