"""Feature queries that need no forward pass: logit lens, nearest neighbours, directions, decomposition.

Logits of a vector `v` (centred if the norm centres) are (v · g) W_U, with the final norm's gain `g` and the
unembedding `W_U`, as in Neuronpedia and SAEDashboard (`W_dec @ W_U`, final norm folded in). Biases, a cap on the logits
and the norm's division by the hidden state's length are left out.
"""

from typing import Any, Protocol

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from millm.engine.attached_saes import AttachedSaes, Attachment
from millm.engine.messages import (
    ComputeDirections,
    Decompose,
    Decomposed,
    DescribeFeature,
    DirectionsComputed,
    FeatureDescribed,
    FeatureQuery,
    FeatureQueryResult,
    IndexedValues,
    SteeringDirection,
)
from millm.errors import InvalidRequest, ModelNotLoaded
from millm.sae import hooks
from millm.sae.autoencoder import matching_pursuit
from millm.sae.hooks import CausalModel, decoder_layers
from millm.sae.steering import SaeSteering, reads_activation

ROWS_PER_CHUNK = 16384  # Rows of the unembedding in float32 at once: 16384 × 4096 × 4 bytes = 256 MB
MAX_QUERY_ITEMS = 64  # Limit of a decomposition's features, and of a description's tokens and neighbours
_RESIDUAL_STREAM_KINDS = ("resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out")
"""Hook points in the residual stream, or added to it unchanged."""


class HeadedModel(CausalModel, Protocol):
    @property
    def dtype(self) -> torch.dtype: ...

    def get_output_embeddings(self) -> Any: ...


@torch.inference_mode()
def unembed(model: HeadedModel, vector: Tensor) -> Tensor | None:
    """`vector [d]` → logits `[V]` in float32, on the model's device; None if the model has no head of that width."""
    head = model.get_output_embeddings()
    width = model.config.get_text_config(decoder=True).hidden_size
    if head is None or len(vector) != width or getattr(head, "in_features", width) != width:
        return None
    return _apply_head(model, head, _apply_final_norm(model, vector.to(model.device)))


def _apply_final_norm(model: HeadedModel, vector: Tensor) -> Tensor:
    """The gain is measured, because families store it differently: Gemma's is 1 + w."""
    norm = _final_norm(model)
    if norm is None:
        return vector
    alternating = torch.ones_like(vector)
    alternating[1::2] = -1.0
    gain = _odd_part(norm, alternating) * alternating
    constant = _odd_part(norm, torch.ones_like(vector))
    centres = bool(constant.norm() < 0.01 * gain.norm())  # a norm that centres maps a constant to 0, up to rounding
    return (vector - vector.mean() if centres else vector) * gain


def _final_norm(model: HeadedModel) -> nn.Module | None:
    """The last norm beside the list of layers; None in the rare model without one."""
    layers, body = decoder_layers(model), model.get_decoder()
    holders = [module for module in body.modules() if any(child is layers for child in module.children())]
    norms = [
        module
        for name, module in holders[0].named_children()
        if "norm" in type(module).__name__.lower() and "embed" not in name
    ]
    return norms[-1] if norms else None


def _odd_part(module: nn.Module, x: Tensor) -> Tensor:
    """`module(x [d])` without its bias, in float32  # [d']"""
    like = next((weights for weights in module.parameters() if weights.is_floating_point()), x)
    device = x.device if like.is_meta else like.device
    positive, negative = module(torch.stack((x, -x))[None].to(device, like.dtype))[0].float()
    odd: Tensor = (positive - negative).to(x.device) / 2
    return odd


def _apply_head(model: HeadedModel, head: Any, vector: Tensor) -> Tensor:
    """Plain weights in float32, a chunk at a time; packed or offloaded ones in their own format."""
    if type(head) is nn.Linear and not head.weight.is_meta:
        chunks = torch.split(head.weight, ROWS_PER_CHUNK)
        return torch.cat([chunk.float() @ vector.to(chunk.device) for chunk in chunks])
    positive, negative = head(torch.stack((vector, -vector))[None].to(model.dtype))[0].float()
    logits: Tensor = (positive - negative) / 2
    return logits


def answer_query(
    model: PreTrainedModel | None, attached_saes: AttachedSaes, command: FeatureQuery
) -> FeatureQueryResult:
    """Raises ModelNotLoaded, SaeNotFound, SaeDetached, InvalidSteering or InvalidRequest."""
    if model is None:
        raise ModelNotLoaded("no model is loaded")
    match command:
        case DescribeFeature():
            return _describe(model, attached_saes.get(command.sae), command)
        case ComputeDirections():
            by_sae = command.steering.by_sae
            directions = tuple(_steering_direction(attached_saes.get_steerable(item), item) for item in by_sae)
            return DirectionsComputed(id=command.id, directions=directions)
        case Decompose():
            return _decompose(attached_saes.get(command.sae), command)


def _describe(model: PreTrainedModel, attachment: Attachment, command: DescribeFeature) -> FeatureDescribed:
    _check_range("tokens", command.tokens, 0)
    _check_range("neighbours", command.neighbours, 0)
    rows = attachment.hook.sae.features([command.index])
    logits = unembed(model, rows.dec[0]) if _writes_to_residual_stream(model, attachment) else None
    cosines = attachment.hook.sae.projections(rows.dec[0])  # [F]
    cosines[command.index] = -torch.inf
    return FeatureDescribed(
        id=command.id,
        decoder_norm=float(rows.dec_norm[0]),
        promoted=() if logits is None else _largest(logits, command.tokens),
        suppressed=() if logits is None else tuple((i, -value) for i, value in _largest(-logits, command.tokens)),
        neighbours=_largest(cosines, min(command.neighbours, len(cosines) - 1)),
    )


def _writes_to_residual_stream(model: PreTrainedModel, attachment: Attachment) -> bool:
    """False for other decoders (attention heads, a transcoder's unnamed output), which have no logits."""
    config = attachment.hook.sae.config
    if not config.is_transcoder:
        return attachment.hook_point.kind in _RESIDUAL_STREAM_KINDS
    name = config.hook_name_out
    return name is not None and hooks.resolve_hook_point(model, name).kind in _RESIDUAL_STREAM_KINDS


def _largest(values: Tensor, count: int) -> IndexedValues:
    top = values.topk(min(count, len(values)))
    return tuple(zip(top.indices.tolist(), top.values.tolist(), strict=True))


def _steering_direction(attachment: Attachment, sae_steering: SaeSteering) -> SteeringDirection:
    additive = [feature for feature in sae_steering.features if not reads_activation(feature)]
    vector = attachment.hook.additive_delta(additive).cpu()
    return SteeringDirection(
        sae=sae_steering.sae,
        layer=attachment.hook_point.layer,
        hook_point=attachment.hook_point.name,
        vector=vector.numpy().astype("<f4").tobytes(),
        norm=float(vector.norm()),
        varies=len(additive) < len(sae_steering.features),
    )


def _decompose(attachment: Attachment, command: Decompose) -> Decomposed:
    _check_range("most", command.most, 1)
    width, size = attachment.hook.sae.config.d_out, len(command.vector)
    if size != 4 * width:
        raise InvalidRequest(
            f"the vector has {size / 4:g} numbers, SAE {command.sae!r} writes vectors of {width}", param="vector"
        )
    vector = torch.frombuffer(bytearray(command.vector), dtype=torch.float32)
    if not bool(torch.isfinite(vector).all()):
        raise InvalidRequest("the vector holds NaN or infinite numbers; give finite ones", param="vector")
    features, residual = matching_pursuit(attachment.hook.sae, vector, command.most)
    return Decomposed(id=command.id, features=features, residual=residual)


def _check_range(name: str, value: int, minimum: int) -> None:
    if not minimum <= value <= MAX_QUERY_ITEMS:
        raise InvalidRequest(f"`{name}` must be {minimum} to {MAX_QUERY_ITEMS}, not {value}", param=name)
