"""A tap's step in tensors that stay where they are, for passes that are recorded once and replayed.

Rows and columns beyond those in use are zero, and zero does nothing (`sae/tap.py`).
"""

from dataclasses import dataclass

import torch

from millm.sae.sizes import MAX_WATCHED_FEATURES
from millm.sae.steering import MAX_ENCODED_FEATURES
from millm.sae.tap_step import TapStep

ENCODED = (0, 8, MAX_ENCODED_FEATURES)
"""Columns of coefficients in a recording: as few as hold what is used."""
WATCHED = (0, 32, 96, MAX_WATCHED_FEATURES)


@dataclass(frozen=True)
class Extent:
    """What of a step is baked into a recording."""

    encoded: int
    watched: int
    steers: bool
    reads_both: bool


def is_fixable(step: TapStep) -> bool:
    """Readings of the whole dictionary have as many rows as there are tokens to read: no two passes are alike."""
    return step.whole_before is None and step.whole_after is None


def extent_of(step: TapStep) -> Extent:
    return Extent(
        encoded=_at_least(step.encoded, ENCODED),
        watched=_at_least(step.watched, WATCHED),
        steers=step.steers,
        reads_both=step.reads_both,
    )


def blank(extent: Extent, rows: int, device: torch.device) -> TapStep:
    """A step of one token per row that does nothing until it is filled."""
    return TapStep(
        rows=torch.zeros(rows, dtype=torch.long, device=device),
        keep=torch.zeros(rows, 1, device=device),
        encoded=extent.encoded,
        watched=extent.watched,
        top_k=0,
        steers=extent.steers,
        reads_after=torch.zeros(rows, 1, 1, dtype=torch.bool, device=device) if extent.steers else None,
        reads_both=extent.reads_both,
        whole_before=None,
        whole_after=None,
    )


def fill(fixed: TapStep, step: TapStep) -> None:
    """The numbers of `step`, which has no more rows than `fixed`; the rows beyond do nothing."""
    count = len(step.rows)
    _put(fixed.rows, step.rows, count)
    _put(fixed.keep, step.keep, count)
    if fixed.reads_after is not None:
        _put(fixed.reads_after, step.reads_after, count)


def _put(fixed: torch.Tensor, values: torch.Tensor | None, count: int) -> None:
    fixed.zero_()
    if values is not None:
        fixed[:count] = values


def _at_least(needed: int, sizes: tuple[int, ...]) -> int:
    return next(size for size in sizes if size >= needed)
