"""A tap's step in tensors that stay where they are, for passes that are recorded once and replayed.

Rows and columns beyond those in use are zero, and zero does nothing (`sae/tap.py`).
"""

from dataclasses import dataclass

import torch

from millm.sae.sizes import MAX_WATCHED_FEATURES
from millm.sae.steering import MAX_ENCODED_FEATURES
from millm.sae.tap_step import HookStep

ENCODED_COLUMN_SIZES = (0, 8, MAX_ENCODED_FEATURES)
"""Columns of coefficients in a recording: as few as hold what is used."""
WATCHED_COLUMN_SIZES = (0, 32, 96, MAX_WATCHED_FEATURES)


@dataclass(frozen=True)
class HookStepShape:
    """What of a step is baked into a recording."""

    encoded_columns: int
    watched_columns: int
    steers: bool
    reads_both: bool


def is_capturable(step: HookStep) -> bool:
    """Readings of the whole dictionary have as many rows as there are tokens to read: no two passes are alike."""
    return step.full_read_before is None and step.full_read_after is None


def hook_step_shape(step: HookStep) -> HookStepShape:
    return HookStepShape(
        encoded_columns=_smallest_size_for(step.encoded_columns, ENCODED_COLUMN_SIZES),
        watched_columns=_smallest_size_for(step.watched_columns, WATCHED_COLUMN_SIZES),
        steers=step.steers,
        reads_both=step.reads_both,
    )


def blank_step(shape: HookStepShape, rows: int, device: torch.device) -> HookStep:
    """A step of one token per row that does nothing until it is filled."""
    return HookStep(
        rows=torch.zeros(rows, dtype=torch.long, device=device),
        steer_mask=torch.zeros(rows, 1, device=device),
        encoded_columns=shape.encoded_columns,
        watched_columns=shape.watched_columns,
        top_k=0,
        steers=shape.steers,
        reads_after=torch.zeros(rows, 1, 1, dtype=torch.bool, device=device) if shape.steers else None,
        reads_both=shape.reads_both,
        full_read_before=None,
        full_read_after=None,
    )


def fill_step(target: HookStep, step: HookStep) -> None:
    """The numbers of `step`, which has no more rows than `fixed`; the rows beyond do nothing."""
    count = len(step.rows)
    _copy_rows(target.rows, step.rows, count)
    _copy_rows(target.steer_mask, step.steer_mask, count)
    if target.reads_after is not None:
        _copy_rows(target.reads_after, step.reads_after, count)


def _copy_rows(target: torch.Tensor, values: torch.Tensor | None, count: int) -> None:
    target.zero_()
    if values is not None:
        target[:count] = values


def _smallest_size_for(needed: int, sizes: tuple[int, ...]) -> int:
    return next(size for size in sizes if size >= needed)
