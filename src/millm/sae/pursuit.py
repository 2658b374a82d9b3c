"""A vector as a weighted sum of few decoder rows: orthogonal matching pursuit.

Pati, Rezaiifar, Krishnaprasad 1993: take the row that the rest points along most, fit all that were taken to the vector
by least squares, go on with what is left. Weights may be negative, as strengths may.
"""

import torch
from torch import Tensor

from millm.sae.autoencoder import SparseAutoencoder

RESIDUAL_TOLERANCE = 1e-4
"""Share of the vector's length: so little left over is rounding."""


def matching_pursuit(
    sae: SparseAutoencoder, vector: Tensor, max_features: int
) -> tuple[tuple[tuple[int, float], ...], float]:
    """`vector [d_out]` → ((feature, strength along its unit row), largest first), and the share that is left over."""
    length = float(vector.norm())
    chosen: list[int] = []
    strengths, rest = torch.zeros(0), vector
    while len(chosen) < min(max_features, sae.config.d_sae) and float(rest.norm()) > RESIDUAL_TOLERANCE * length:
        fitting = sae.projections(rest).abs()  # [F]
        fitting[chosen] = 0.0
        chosen.append(int(fitting.argmax()))
        rows = sae.features(chosen).dec.double()  # [n, d_out]
        strengths = torch.linalg.lstsq(rows.T, vector.double()[:, None]).solution[:, 0]
        rest = (vector.double() - strengths @ rows).float()
    order = strengths.abs().argsort(descending=True).tolist()
    pairs = tuple((chosen[place], float(strengths[place])) for place in order)
    return pairs, float(rest.norm()) / length if length else 0.0
