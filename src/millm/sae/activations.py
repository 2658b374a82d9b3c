"""The arithmetic of an SAE: normalise the input, encode with any rows of the encoder, undo the normalisation.

Formulas are SAELens' (github.com/decoderesearch/SAELens, `sae_lens/saes`). Knows no files.
"""

import dataclasses
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor

from millm.errors import InvalidSae
from millm.sae.config import Architecture, SaeConfig

SMALLEST_NORM = 1e-8
"""SAELens' floor for the norm of a decoder row: a dead row of zeros stays zero when scaled to unit length."""


def decoder_norms(decoder: Tensor) -> Tensor:
    """‖row‖, at least SMALLEST_NORM: [..., d_out] → [...]."""
    norms: Tensor = torch.linalg.vector_norm(decoder, dim=-1)
    return norms.clamp_min(SMALLEST_NORM)


def centred(x: Tensor, config: SaeConfig) -> Tensor:
    """x [..., d_in] in float32, minus its mean for an SAE that was trained on centred residuals."""
    x = x.float()
    return x - x.mean(-1, keepdim=True) if config.center_inputs else x


def normalise(x: Tensor, config: SaeConfig, b_dec_in: Tensor | None) -> tuple[Tensor, Tensor | float]:
    """The encoder's input z [..., d_in], and the gain [..., 1] from SAE output units to residual units.

    `b_dec_in` [d_in]: the decoder's bias with `apply_b_dec_to_input`, else None.
    """
    z, gain = _scale_input(centred(x, config), config)
    return (z if b_dec_in is None else z - b_dec_in), gain


def _scale_input(x: Tensor, config: SaeConfig) -> tuple[Tensor, Tensor | float]:
    if config.normalize_activations == "constant_norm_rescale":
        # With the floor, a token of zeros stays finite; SAELens returns NaN.
        scale = x.shape[-1] ** 0.5 / x.norm(dim=-1, keepdim=True).clamp_min(1e-12)
        return x * scale, 1 / scale
    if config.normalize_activations == "layer_norm":
        x = x - x.mean(-1, keepdim=True)
        std = x.std(-1, keepdim=True)  # unbiased, as SAELens
        return x / (std + 1e-5), std
    return x, 1.0


def output_shift(x: Tensor, config: SaeConfig) -> Tensor | float:
    """The mean [..., 1] that `normalise` subtracted from x, to be added to a reconstruction."""
    if config.center_inputs or config.normalize_activations == "layer_norm":
        return x.float().mean(-1, keepdim=True)
    return 0.0


def keep_top_k(values: Tensor, k: int) -> Tensor:
    """values [..., F] with all but the k largest set to zero, and negative values as well."""
    largest = values.topk(k, dim=-1, sorted=False)
    return torch.zeros_like(values).scatter_(-1, largest.indices, largest.values.relu())


@dataclass(frozen=True, kw_only=True)
class EncoderRows:
    """The encoder of some features, stacked on the feature dimension K.

    Biases are [K] with `enc` [K, d_in]; after gathering by an index [B, K], [B, K] with [B, K, d_in].
    """

    architecture: Architecture
    enc: Tensor  # [..., K, d_in]
    b_enc: Tensor  # [..., K]; zeros for gated SAEs
    threshold: Tensor | None = None  # [..., K]
    b_gate: Tensor | None = None
    r_mag: Tensor | None = None
    b_mag: Tensor | None = None

    def __getitem__(self, index: Tensor) -> Self:
        """The rows at `index`, of any shape: [B, K] gives `enc` [B, K, d_in]."""
        return self.replace_tensors({name: rows[index] for name, rows in self.tensors().items()})

    def tensors(self) -> dict[str, Tensor]:
        return {name: value for name, value in vars(self).items() if isinstance(value, Tensor)}

    def replace_tensors(self, tensors: dict[str, Tensor]) -> Self:
        replacements: dict[str, Any] = {**tensors}
        return dataclasses.replace(self, **replacements)

    def pre_activations(self, z: Tensor) -> Tensor:
        """Normalised z [..., d_in] → [..., K], before the nonlinearity."""
        return z @ self.enc.transpose(-1, -2) + _broadcast_over_tokens(self.b_enc)

    def native_activations(self, z: Tensor) -> Tensor:
        """Normalised z [..., d_in] → [..., K] in the SAE's own units. Not for topk, which ranks features."""
        pre = self.pre_activations(z)
        if self.b_gate is not None and self.r_mag is not None and self.b_mag is not None:
            magnitude = pre * _broadcast_over_tokens(self.r_mag.exp()) + _broadcast_over_tokens(self.b_mag)
            return (pre + _broadcast_over_tokens(self.b_gate) > 0) * magnitude.relu()
        if self.threshold is not None:
            return pre.relu() * (pre > _broadcast_over_tokens(self.threshold))
        return pre.relu()


@dataclass(frozen=True, kw_only=True)
class FeatureRows(EncoderRows):
    """Some features: their encoder, and their decoder rows scaled to unit length."""

    dec: Tensor  # [..., K, d_out], unit length
    dec_norm: Tensor  # [..., K], the original length

    def activations(self, z: Tensor) -> Tensor:
        """z [..., d_in] → [..., K], or z [B, T, d_in] with rows [B, K, ...] → [B, T, K].

        In units of the residual stream: the native activation × the norm of the decoder row, as in SAELens after
        `fold_W_dec_norm()`. Raises InvalidSae for topk, where a feature depends on all others.
        """
        if self.architecture == "topk":
            raise InvalidSae("a topk SAE ranks all its features, so single features cannot be read")
        return self.native_activations(z) * _broadcast_over_tokens(self.dec_norm)


def _broadcast_over_tokens(per_feature: Tensor) -> Tensor:
    """[K] unchanged; [B, K] as [B, 1, K], to broadcast with [B, T, K]."""
    return per_feature if per_feature.ndim == 1 else per_feature.unsqueeze(-2)
