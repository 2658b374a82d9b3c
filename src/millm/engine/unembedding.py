"""What a vector in the residual stream says of the next token: through the last norm's gain and the unembedding.

With `v` the vector (centred where the norm centres), `g` the norm's gain and `W_U` the unembedding, logits are
(v · g) W_U, as Neuronpedia and SAEDashboard have it (github.com/decoderesearch: `W_dec @ W_U`, final norm folded in).
Left out is what no direction has: the norm's division by the length of what it meets, biases, a cap behind the head.
"""

from typing import Any, Protocol

import torch
from torch import Tensor, nn

from millm.sae.hooks import CausalModel, decoder_layers

ROWS_AT_ONCE = 16384
"""Tokens whose unembedding is in float32 at once: 16384 × 4096 × 4 bytes = 256 MB."""


class HeadedModel(CausalModel, Protocol):
    """What of a Hugging Face model is used here."""

    @property
    def dtype(self) -> torch.dtype: ...

    def get_output_embeddings(self) -> Any: ...


@torch.inference_mode()
def unembed(model: HeadedModel, vector: Tensor) -> Tensor | None:
    """`vector [d]` → logits `[V]` in float32, on the model's device; None where the model has no head for its width."""
    head = model.get_output_embeddings()
    width = model.config.get_text_config(decoder=True).hidden_size
    if head is None or len(vector) != width or getattr(head, "in_features", width) != width:
        return None
    return _apply_head(model, head, _apply_final_norm(model, vector.to(model.device)))


def _apply_final_norm(model: HeadedModel, vector: Tensor) -> Tensor:
    """Asked of the norm itself, whatever its family calls its weight: Gemma's gain is 1 + w."""
    norm = _final_norm(model)
    if norm is None:
        return vector
    alternating = torch.ones_like(vector)
    alternating[1::2] = -1.0
    gain = _odd_part(norm, alternating) * alternating
    constant = _odd_part(norm, torch.ones_like(vector))
    centres = bool(constant.norm() < 0.01 * gain.norm())  # nothing is left of a constant but its rounding
    return (vector - vector.mean() if centres else vector) * gain


def _final_norm(model: HeadedModel) -> nn.Module | None:
    """What stands beside the list of layers; None in the rare model that has none."""
    layers, body = decoder_layers(model), model.get_decoder()
    holders = [module for module in body.modules() if any(child is layers for child in module.children())]
    norms = [
        module
        for name, module in holders[0].named_children()
        if "norm" in type(module).__name__.lower() and "embed" not in name
    ]
    return norms[-1] if norms else None


def _odd_part(module: nn.Module, x: Tensor) -> Tensor:
    """What `module` makes of x [d] without its bias, in float32  # [d']"""
    like = next((weights for weights in module.parameters() if weights.is_floating_point()), x)
    device = x.device if like.is_meta else like.device
    there, back = module(torch.stack((x, -x))[None].to(device, like.dtype))[0].float()
    odd: Tensor = (there - back).to(x.device) / 2
    return odd


def _apply_head(model: HeadedModel, head: Any, vector: Tensor) -> Tensor:
    """Plain weights in float32, a piece at a time; packed or offloaded ones as they compute."""
    if type(head) is nn.Linear and not head.weight.is_meta:
        parts = torch.split(head.weight, ROWS_AT_ONCE)
        return torch.cat([part.float() @ vector.to(part.device) for part in parts])
    there, back = head(torch.stack((vector, -vector))[None].to(model.dtype))[0].float()
    logits: Tensor = (there - back) / 2
    return logits
