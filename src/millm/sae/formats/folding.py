"""Rewrites an SAE's weights so that what was done to its activations outside is done by the weights.

After SAELens' `fold_activation_norm_scaling_factor` and `fold_W_dec_norm`. Results are float32, or stay float64.
"""

import dataclasses

import msgspec
import torch
from torch import Tensor

from millm.sae.activations import SMALLEST_NORM
from millm.sae.formats.source import SourceSae, dtype_name


def fold_input_scale(source: SourceSae, scale: float) -> SourceSae:
    """For an SAE trained on `scale`·x: one that reads x itself (`expected_average_only_in`)."""
    old = source.tensors
    return _with_folded_tensors(
        source,
        f"input scale {scale}",
        W_enc_T=_at_least_float32(old["W_enc_T"]) * scale,
        W_dec=_at_least_float32(old["W_dec"]) / scale,
        b_dec=_at_least_float32(old["b_dec"]) / scale,
    )


def fold_decoder_norms(source: SourceSae) -> SourceSae:
    """Makes decoder rows unit length and activations larger by as much; the threshold is in those units."""
    old = source.tensors
    decoder = _at_least_float32(old["W_dec"])
    norms = decoder.norm(dim=-1).clamp_min(SMALLEST_NORM)  # [F]
    return _with_folded_tensors(
        source,
        "decoder norms",
        W_enc_T=_at_least_float32(old["W_enc_T"]) * norms.unsqueeze(-1),
        b_enc=_at_least_float32(old["b_enc"]) * norms,
        W_dec=decoder / norms.unsqueeze(-1),
    )


def _with_folded_tensors(source: SourceSae, description: str, **tensors: Tensor) -> SourceSae:
    config = msgspec.structs.replace(source.config, dtype=dtype_name(tensors["W_enc_T"]))
    return dataclasses.replace(
        source, config=config, tensors=source.tensors | tensors, folded=(*source.folded, description)
    )


def _at_least_float32(tensor: Tensor) -> Tensor:
    return tensor if tensor.dtype == torch.float64 else tensor.float()
