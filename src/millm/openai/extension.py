"""`millm` in an answer: the receipt of the steering it got, and the activations that were asked for."""

from collections.abc import Sequence

from msgspec import UNSET, UnsetType

from millm.engine.messages import SteeringReceipt
from millm.lifecycle.selection import Selection
from millm.openai.pieces import OutputDelta
from millm.protocol.response import Extension


def build_extension(
    selection: Selection,
    choices: Sequence[OutputDelta],
    *,
    watching: bool,
    sample_every: int | UnsetType,
    tools_omitted: bool = False,
) -> Extension:
    """Of choices that have ended: positions are added up, ratios averaged over them."""
    receipts = [piece.end.receipt for piece in choices if piece.end and piece.end.receipt]
    steering = receipts[0].fingerprint if receipts else None
    degraded = selection.degraded or next((receipt.degraded for receipt in receipts if receipt.degraded), None)
    activations = tuple(activation for piece in choices for activation in piece.activations)
    return Extension(
        profile=selection.profile if steering == _expected_fingerprint(selection) else None,
        steering=steering,
        tokens_steered=sum(receipt.tokens_steered for receipt in receipts),
        delta_norm_ratio=_mean_ratio(receipts),
        degraded=degraded or UNSET,
        activations=activations if watching else UNSET,
        sample_every=sample_every,
        tools_omitted=tools_omitted or UNSET,
    )


def _expected_fingerprint(selection: Selection) -> str | None:
    """Fingerprint of what was selected; another one was applied where the active steering changed meanwhile."""
    return selection.steering.fingerprint if selection.steering else None


def _mean_ratio(receipts: Sequence[SteeringReceipt]) -> float:
    positions = sum(receipt.tokens_steered for receipt in receipts)
    total = sum(receipt.delta_norm_ratio * receipt.tokens_steered for receipt in receipts)
    return total / positions if positions else 0.0
