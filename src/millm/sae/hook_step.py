"""What a tap is told of one forward pass: its table rows, which tokens are steered, and which are read.

A watch's named features are read at every token it asks for. Its `top_k` reads the whole dictionary, so of those tokens
only the ones at a multiple of `sample_every` are due: by position alone, whatever else is in the batch and however a
prompt is cut into chunks.

A tap's step in tensors that stay where they are, for passes that are recorded once and replayed.

Rows and columns beyond those in use are zero, and zero does nothing (`sae/tap.py`).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from millm.sae.config import MAX_WATCHED_FEATURES
from millm.sae.steering import MAX_ENCODED_FEATURES, Coefficients, Watch, reads_activation


@dataclass(frozen=True)
class HookRow:
    """What one tap does for one sequence: the key of a table row."""

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
        """Without steering of its own, after is as before."""
        return self._reads_when("after")

    @property
    def reads_both(self) -> bool:
        return self._reads_when("both")

    def _reads_when(self, when: str) -> bool:
        return self.watch is not None and self.watch.when == when and bool(self.features)


@dataclass(frozen=True)
class TokenSpan:
    """Where a row's tokens are in prompt + completion."""

    start: int
    """Position of the first."""
    tokens: int
    prompt_length: int
    """Tokens in the whole prompt."""


@dataclass(frozen=True)
class HookStep:
    """Which rows this forward pass uses; written before the pass, read by the hook."""

    rows: Tensor  # [B] int64
    steer_mask: Tensor  # [B, T] float32, 1 where a delta applies
    encoded_columns: int
    """Columns of the coefficient table in use."""
    watched_columns: int
    """Columns of the watch table in use."""
    top_k: int
    steers: bool
    """False when every row only watches: the hidden states are then left untouched."""
    reads_after: Tensor | None  # [B, 1, 1] bool: read this row's activations after steering; None: no row's
    reads_both: bool
    """Some row is read after steering as well."""
    full_read_before: Tensor | None  # [N] int64, b·T + t: tokens whose whole dictionary is read before steering
    full_read_after: Tensor | None  # [N] int64: likewise after steering


@dataclass(frozen=True)
class HookOutput:
    """What a pass left behind, still on the device; only the tokens asked for mean anything."""

    ratio: Tensor | None = None  # [B, T] ‖delta‖ / ‖x‖, 0 where nothing was added
    watched: Tensor | None = None  # [B, T, M]
    top_values: Tensor | None = None  # [B, T, k]
    top_indices: Tensor | None = None  # [B, T, k]
    after: "HookOutput | None" = None
    """What was read after steering as well; it has no ratio and no `after`."""


def offsets_to_watch(watch: Watch | None, span: TokenSpan) -> list[int]:
    """Offsets of the row's tokens that a watch asks for."""
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
    """Those of them at which its `top_k` is read; `sample_every` holds for a watch that does not say."""
    if watch is None or not watch.top_k:
        return []
    every = watch.sample_every or sample_every
    return [offset for offset in offsets_to_watch(watch, span) if (span.start + offset) % every == 0]


@dataclass(frozen=True)
class RowPlan:
    """What one row of a pass needs of the tap."""

    row: HookRow
    watched_offsets: list[int]
    sampled_offsets: list[int]
    full_read_before: set[int]
    """Tokens at which the whole dictionary is needed before steering."""
    full_read_after: set[int]

    @property
    def is_idle(self) -> bool:
        """Nothing to steer or read in this pass."""
        reads_names = self.row.watched_features and self.watched_offsets
        return not (self.row.features or reads_names or self.full_read_before or self.full_read_after)


def plan_row(
    row: HookRow, steer_mask: Sequence[bool], span: TokenSpan, *, sample_every: int, can_read_sparsely: bool
) -> RowPlan:
    """`sparse`: named features can be read alone; else they too need the whole dictionary, wherever they are read."""
    wanted, sampled = offsets_to_watch(row.watch, span), offsets_to_sample(row.watch, span, sample_every)
    read, steered = set(sampled), set[int]()
    if not can_read_sparsely:
        read.update(wanted if row.watched_features else ())
        steered.update(offset for offset, kept in enumerate(steer_mask if row.encoded_features else ()) if kept)
    if row.reads_after:
        return RowPlan(row, wanted, sampled, steered, read)
    return RowPlan(row, wanted, sampled, steered | read, read if row.reads_both else set())


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
