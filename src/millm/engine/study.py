"""What can be said of features without running the model: from decoder rows, final norm and unembedding alone.

Answered between two steps. The decoder is read from its memory-mapped file on the CPU, some rows at a time.
"""

import torch
from torch import Tensor
from transformers import PreTrainedModel

from millm.engine.messages import (
    Decompose,
    Decomposed,
    DescribeFeature,
    Direction,
    Directions,
    DirectionsFound,
    FeatureDescribed,
    Studied,
    Study,
)
from millm.engine.taps import Attachment, Taps
from millm.engine.unembedding import unembed
from millm.errors import InvalidRequest, ModelNotLoaded
from millm.sae import hooks
from millm.sae.pursuit import pursue
from millm.sae.steering import TapSteering, reads_activation

MOST = 64
"""Features of a decomposition, tokens and neighbours of a description."""

_STREAM = ("resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out")
"""Kinds of hook points that are the residual stream, or are added to it as they are."""

Pairs = tuple[tuple[int, float], ...]


def answer(model: PreTrainedModel | None, taps: Taps, command: Study) -> Studied:
    """Raises ModelNotLoaded, SaeNotFound, SaeDetached, InvalidSteering or InvalidRequest."""
    if model is None:
        raise ModelNotLoaded("no model is loaded")
    match command:
        case DescribeFeature():
            return _describe(model, taps.named(command.sae), command)
        case Directions():
            found = tuple(_direction(taps.steered_by(tap), tap) for tap in command.steering.taps)
            return DirectionsFound(id=command.id, directions=found)
        case Decompose():
            return _decompose(taps.named(command.sae), command)


def _describe(model: PreTrainedModel, attached: Attachment, command: DescribeFeature) -> FeatureDescribed:
    _check_range("tokens", command.tokens, 0)
    _check_range("neighbours", command.neighbours, 0)
    rows = attached.tap.sae.features([command.index])
    logits = unembed(model, rows.dec[0]) if _writes_to_stream(model, attached) else None
    return FeatureDescribed(
        id=command.id,
        decoder_norm=float(rows.dec_norm[0]),
        promoted=() if logits is None else _largest(logits, command.tokens),
        suppressed=() if logits is None else tuple((i, -value) for i, value in _largest(-logits, command.tokens)),
        neighbours=_neighbours(attached, rows.dec[0], command),
    )


def _writes_to_stream(model: PreTrainedModel, attached: Attachment) -> bool:
    """What a decoder writes elsewhere (attention heads, a transcoder's unnamed output) has no meaning as logits."""
    config = attached.tap.sae.config
    if not config.is_transcoder:
        return attached.point.kind in _STREAM
    return config.hook_name_out is not None and hooks.resolve(model, config.hook_name_out).kind in _STREAM


def _neighbours(attached: Attachment, unit: Tensor, command: DescribeFeature) -> Pairs:
    cosines = attached.tap.sae.projections(unit)  # [F]
    cosines[command.index] = -torch.inf
    return _largest(cosines, min(command.neighbours, len(cosines) - 1))


def _largest(values: Tensor, count: int) -> Pairs:
    top = values.topk(min(count, len(values)))
    return tuple(zip(top.indices.tolist(), top.values.tolist(), strict=True))


def _direction(attached: Attachment, tap: TapSteering) -> Direction:
    added = [feature for feature in tap.features if not reads_activation(feature)]
    vector = attached.tap.sum_of(added).cpu()
    return Direction(
        sae=tap.sae,
        layer=attached.point.layer,
        hook_point=attached.point.name,
        vector=vector.numpy().astype("<f4").tobytes(),
        norm=float(vector.norm()),
        varies=len(added) < len(tap.features),
    )


def _decompose(attached: Attachment, command: Decompose) -> Decomposed:
    _check_range("most", command.most, 1)
    width, size = attached.tap.sae.config.d_out, len(command.vector)
    if size != 4 * width:
        raise InvalidRequest(
            f"the vector has {size / 4:g} numbers, SAE {command.sae!r} writes vectors of {width}", param="vector"
        )
    vector = torch.frombuffer(bytearray(command.vector), dtype=torch.float32)
    if not bool(torch.isfinite(vector).all()):
        raise InvalidRequest("the vector holds NaN or infinite numbers; give finite ones", param="vector")
    features, residual = pursue(attached.tap.sae, vector, command.most)
    return Decomposed(id=command.id, features=features, residual=residual)


def _check_range(name: str, value: int, least: int) -> None:
    if not least <= value <= MOST:
        raise InvalidRequest(f"`{name}` must be {least} to {MOST}, not {value}", param=name)
