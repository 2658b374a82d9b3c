"""The plan of one forward pass for a steering hook: table rows, tokens to steer, tokens to read.

Also the plan in tensors of a fixed address, for passes that are captured once and replayed.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from millm.sae.config import MAX_WATCHED_FEATURES
from millm.sae.steering import MAX_ENCODED_FEATURES, Coefficients, Watch, reads_activation

ENCODED_COLUMN_SIZES = (0, 8, MAX_ENCODED_FEATURES)
"""Columns of coefficients in a captured pass: the smallest size that fits."""
WATCHED_COLUMN_SIZES = (0, 32, 96, MAX_WATCHED_FEATURES)


@dataclass(frozen=True)
class HookRow:
    """What a hook does for one sequence: the key of a table row."""

    features: tuple[Coefficients, ...] = ()
    watch: Watch | None = None

    @property
    def encoded_features(self) -> tuple[Coefficients, ...]:
        return tuple(feature for feature in self.features if reads_activation(feature))

    @property
    def watched_features(self) -> tuple[int, ...]:
        return self.watch.features if self.watch else ()

    @property
    def reads_after(self) -> bool:
        """False without steering, where after equals before."""
        return self._reads_when("after")

    @property
    def reads_both(self) -> bool:
        return self._reads_when("both")

    def _reads_when(self, when: str) -> bool:
        return self.watch is not None and self.watch.when == when and bool(self.features)


@dataclass(frozen=True)
class TokenSpan:
    """The tokens of one row in this pass, as positions in prompt + completion."""

    start: int
    tokens: int
    prompt_length: int  # tokens of the complete prompt


@dataclass(frozen=True)
class HookStep:
    """Written before a forward pass, read by the hook. B rows of T tokens."""

    rows: Tensor  # [B] int64
    steer_mask: Tensor  # [B, T] float32, 1 where a delta applies
    encoded_columns: int  # columns of the coefficient table in use
    watched_columns: int  # columns of the watch table in use
    top_k: int
    steers: bool  # False when all rows only watch; the hidden states stay untouched
    reads_after: Tensor | None  # [B, 1, 1] bool: rows read after steering; None for no row
    reads_both: bool  # True when a row is read both before and after steering
    full_read_before: Tensor | None  # [N] int64, b·T + t: tokens with a full read before steering
    full_read_after: Tensor | None  # [N] int64: the same after steering


@dataclass(frozen=True)
class HookOutput:
    """Readings of a pass, still on the device; valid only at the tokens that were to be read."""

    ratio: Tensor | None = None  # [B, T] ‖delta‖ / ‖x‖, 0 without a delta
    watched: Tensor | None = None  # [B, T, M]
    top_values: Tensor | None = None  # [B, T, k]
    top_indices: Tensor | None = None  # [B, T, k]
    after: "HookOutput | None" = None
    """Second readings, after steering; without `ratio` and `after`."""


def offsets_to_watch(watch: Watch | None, span: TokenSpan) -> list[int]:
    """Offsets of the row's tokens that a watch covers; its named features are read at all of them."""
    if watch is None:
        return []
    generated_from = min(max(span.prompt_length - span.start, 0), span.tokens)
    match watch.tokens:
        case "all":
            return list(range(span.tokens))
        case "prompt":
            return list(range(generated_from))
        case "generated":
            return list(range(generated_from, span.tokens))


def offsets_to_sample(watch: Watch | None, span: TokenSpan, sample_every: int) -> list[int]:
    """Offsets at which a watch's `top_k`, which needs the full dictionary, is read: every n-th position.

    Chosen by position alone, independent of the batch and of the chunks of a prompt. `sample_every`: the default n.
    """
    if watch is None or not watch.top_k:
        return []
    interval = watch.sample_every or sample_every
    return [offset for offset in offsets_to_watch(watch, span) if (span.start + offset) % interval == 0]


@dataclass(frozen=True)
class RowPlan:
    """The work of a hook for one row of a pass, as token offsets."""

    row: HookRow
    watched_offsets: list[int]
    sampled_offsets: list[int]
    full_read_before: set[int]  # offsets that need the full dictionary before steering
    full_read_after: set[int]

    @property
    def is_idle(self) -> bool:
        """True with nothing to steer or read in this pass."""
        reads_names = self.row.watched_features and self.watched_offsets
        return not (self.row.features or reads_names or self.full_read_before or self.full_read_after)


def plan_row(
    row: HookRow, steer_mask: Sequence[bool], span: TokenSpan, *, sample_every: int, can_read_sparsely: bool
) -> RowPlan:
    """Without `can_read_sparsely`, single features need the full dictionary as well."""
    watched, sampled = offsets_to_watch(row.watch, span), offsets_to_sample(row.watch, span, sample_every)
    read, steered = set(sampled), set[int]()
    if not can_read_sparsely:
        read.update(watched if row.watched_features else ())
        steered.update(offset for offset, is_steered in enumerate(steer_mask) if is_steered and row.encoded_features)
    if row.reads_after:
        return RowPlan(row, watched, sampled, steered, read)
    return RowPlan(row, watched, sampled, steered | read, read if row.reads_both else set())


@dataclass(frozen=True)
class HookStepShape:
    """The properties of a step that are fixed in a captured pass."""

    encoded_columns: int
    watched_columns: int
    steers: bool
    reads_both: bool


def is_capturable(step: HookStep) -> bool:
    """False with full reads, whose number of rows differs from pass to pass."""
    return step.full_read_before is None and step.full_read_after is None


def hook_step_shape(step: HookStep) -> HookStepShape:
    return HookStepShape(
        encoded_columns=_smallest_size_for(step.encoded_columns, ENCODED_COLUMN_SIZES),
        watched_columns=_smallest_size_for(step.watched_columns, WATCHED_COLUMN_SIZES),
        steers=step.steers,
        reads_both=step.reads_both,
    )


def blank_step(shape: HookStepShape, rows: int, device: torch.device) -> HookStep:
    """A step of one token per row without any effect until `fill_step`; zero rows and columns do nothing."""
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
    """Copy `step` into `target`, which has at least as many rows; the additional rows do nothing."""
    count = len(step.rows)
    _copy_rows(target.rows, step.rows, count)
    _copy_rows(target.steer_mask, step.steer_mask, count)
    if target.reads_after is not None:
        _copy_rows(target.reads_after, step.reads_after, count)


def _copy_rows(target: Tensor, values: Tensor | None, count: int) -> None:
    target.zero_()
    if values is not None:
        target[:count] = values


def _smallest_size_for(needed: int, sizes: tuple[int, ...]) -> int:
    return next(size for size in sizes if size >= needed)
