"""What an SAE makes of a short text at its hook: the scale, how well it explains it, and what looks wrong.

Knows nothing about models: the tensors were captured by the caller (`millm.sae.hooks.capture`).
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from millm.errors import InvalidModel, InvalidRequest
from millm.sae.autoencoder import SparseAutoencoder

_OUTLIER_FACTOR = 6.0
"""× the median norm: attention sinks, 0.04 % of tokens, whose size would drown everything else."""
_MIN_VARIANCE_EXPLAINED = 0.5
"""The demo SAE on the bundled text: 0.74 at its own layer, 0.55 and 0.63 next to it (too near to tell),
at most 0.41 two layers off, below -28 on a model with random weights."""
_MAX_ACTIVE_SHARE = 0.1
"""Of the dictionary. The demo SAE: 0.9 % at its own layer, 17 to 34 % four and more layers above it."""
_CALIBRATION_TOKENS_PER_CHUNK = 32  # bounds memory: 32 tokens × 1M features × 4 bytes = 128 MB


@dataclass(frozen=True)
class SaeCalibration:
    """What was measured over the calibration text, outliers left out."""

    residual_norm: float
    """Median ‖x‖: the unit `norm`."""
    variance_explained: float | None
    """1 − Σ‖t−t̂‖² / Σ‖t−mean t‖²; None where the target does not vary."""
    l0: float
    """Mean number of active features per token."""
    warnings: tuple[str, ...]


@torch.no_grad()
def calibrate(sae: SparseAutoencoder, x: Tensor, target: Tensor) -> SaeCalibration:
    """Measure an SAE on x [N, d_in] and what it should give back, target [N, d_out]: x, but for transcoders.

    The caller leaves out position 0 of each text. Raises InvalidRequest without tokens and InvalidModel where
    the model's own values are not finite.
    """
    norms = _residual_norms(x)
    median = norms.median()
    usual = norms <= _OUTLIER_FACTOR * median
    l0 = _mean_l0(sae, x[usual])
    explained = _variance_explained(sae, x[usual], target[usual])
    warnings = (_low_variance_warning(explained), _l0_warning(l0, sae.config.d_sae))
    return SaeCalibration(median.item(), explained, l0, tuple(filter(None, warnings)))


def _residual_norms(x: Tensor) -> Tensor:
    if x.shape[0] == 0:
        raise InvalidRequest("an SAE needs at least one token beyond the first of a text to be calibrated on")
    norms: Tensor = torch.linalg.vector_norm(x.float(), dim=-1)  # [N]
    if not norms.isfinite().all():
        raise InvalidModel(
            "the model's values at this hook point are not finite: load it in bfloat16 or float32",
            param="dtype",
        )
    return norms


def _mean_l0(sae: SparseAutoencoder, x: Tensor) -> float:
    active = sum(
        int(sae.encode(rows).count_nonzero()) for rows in torch.split(x.float(), _CALIBRATION_TOKENS_PER_CHUNK)
    )
    return active / x.shape[0]


def _variance_explained(sae: SparseAutoencoder, x: Tensor, target: Tensor) -> float | None:
    target = target.float()
    rebuilt = torch.cat([sae.reconstruct(rows) for rows in torch.split(x.float(), _CALIBRATION_TOKENS_PER_CHUNK)])
    total = (target - target.mean(dim=0)).square().sum()
    return None if total == 0 else (1 - (target - rebuilt).square().sum() / total).item()


def _low_variance_warning(explained: float | None) -> str | None:
    if explained is None or explained >= _MIN_VARIANCE_EXPLAINED:
        return None
    share = f"only {explained:.0%}" if explained > 0 else "none"
    return f"this looks like the wrong layer or model: the SAE explains {share} of the variance here"


def _l0_warning(l0: float, d_sae: int) -> str | None:
    if l0 == 0:
        return "not one feature of the SAE is active here: this looks like the wrong layer or model"
    if l0 > _MAX_ACTIVE_SHARE * d_sae:
        return f"{l0:.0f} of {d_sae} features are active per token, far too many: wrong layer or model?"
    return None
