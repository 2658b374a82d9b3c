"""What can be said of features without running the model: from decoder rows, final norm and unembedding alone.

Answered between two steps. The decoder is read from its memory-mapped file on the CPU, some rows at a time.
"""

import torch
from torch import Tensor
from transformers import PreTrainedModel

from millm.engine.messages import (
    ComputeDirections,
    Decompose,
    Decomposed,
    DescribeFeature,
    DirectionsComputed,
    FeatureDescribed,
    FeatureQuery,
    FeatureQueryResult,
    SteeringDirection,
)
from millm.engine.taps import AttachedSaes, Attachment
from millm.engine.unembedding import unembed
from millm.errors import InvalidRequest, ModelNotLoaded
from millm.sae import hooks
from millm.sae.autoencoder import matching_pursuit
from millm.sae.steering import SaeSteering, reads_activation

MAX_QUERY_ITEMS = 64
"""Features of a decomposition, tokens and neighbours of a description."""

_RESIDUAL_STREAM_KINDS = ("resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out")
"""Kinds of hook points that are the residual stream, or are added to it as they are."""

IndexedValues = tuple[tuple[int, float], ...]


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
            found = tuple(_steering_direction(attached_saes.get_steerable(tap), tap) for tap in command.steering.by_sae)
            return DirectionsComputed(id=command.id, directions=found)
        case Decompose():
            return _decompose(attached_saes.get(command.sae), command)


def _describe(model: PreTrainedModel, attachment: Attachment, command: DescribeFeature) -> FeatureDescribed:
    _check_range("tokens", command.tokens, 0)
    _check_range("neighbours", command.neighbours, 0)
    rows = attachment.hook.sae.features([command.index])
    logits = unembed(model, rows.dec[0]) if _writes_to_residual_stream(model, attachment) else None
    return FeatureDescribed(
        id=command.id,
        decoder_norm=float(rows.dec_norm[0]),
        promoted=() if logits is None else _largest(logits, command.tokens),
        suppressed=() if logits is None else tuple((i, -value) for i, value in _largest(-logits, command.tokens)),
        neighbours=_neighbours(attachment, rows.dec[0], command),
    )


def _writes_to_residual_stream(model: PreTrainedModel, attachment: Attachment) -> bool:
    """What a decoder writes elsewhere (attention heads, a transcoder's unnamed output) has no meaning as logits."""
    config = attachment.hook.sae.config
    if not config.is_transcoder:
        return attachment.hook_point.kind in _RESIDUAL_STREAM_KINDS
    return (
        config.hook_name_out is not None
        and hooks.resolve_hook_point(model, config.hook_name_out).kind in _RESIDUAL_STREAM_KINDS
    )


def _neighbours(attachment: Attachment, unit: Tensor, command: DescribeFeature) -> IndexedValues:
    cosines = attachment.hook.sae.projections(unit)  # [F]
    cosines[command.index] = -torch.inf
    return _largest(cosines, min(command.neighbours, len(cosines) - 1))


def _largest(values: Tensor, count: int) -> IndexedValues:
    top = values.topk(min(count, len(values)))
    return tuple(zip(top.indices.tolist(), top.values.tolist(), strict=True))


def _steering_direction(attachment: Attachment, sae_steering: SaeSteering) -> SteeringDirection:
    added = [feature for feature in sae_steering.features if not reads_activation(feature)]
    vector = attachment.hook.additive_delta(added).cpu()
    return SteeringDirection(
        sae=sae_steering.sae,
        layer=attachment.hook_point.layer,
        hook_point=attachment.hook_point.name,
        vector=vector.numpy().astype("<f4").tobytes(),
        norm=float(vector.norm()),
        varies=len(added) < len(sae_steering.features),
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


def _check_range(name: str, value: int, least: int) -> None:
    if not least <= value <= MAX_QUERY_ITEMS:
        raise InvalidRequest(f"`{name}` must be {least} to {MAX_QUERY_ITEMS}, not {value}", param=name)
