"""What a tap is told of one forward pass: its table rows, which tokens are steered, and which are read.

A watch's named features are read at every token it asks for. Its `top_k` reads the whole dictionary, so of those tokens
only the ones at a multiple of `sample_every` are due: by position alone, whatever else is in the batch and however a
prompt is cut into chunks.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from millm.engine.messages import Watch
from millm.sae.steering import Coefficients, reads_activation


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
