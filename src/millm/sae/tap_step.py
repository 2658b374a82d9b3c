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
class TapRow:
    """What one tap does for one sequence: the key of a table row."""

    features: tuple[Coefficients, ...] = ()
    watch: Watch | None = None

    @property
    def encoded(self) -> tuple[Coefficients, ...]:
        return tuple(feature for feature in self.features if reads_activation(feature))

    @property
    def watched(self) -> tuple[int, ...]:
        return self.watch.features if self.watch else ()

    @property
    def reads_after(self) -> bool:
        """Without steering of its own, after is as before."""
        return self._reads("after")

    @property
    def reads_both(self) -> bool:
        return self._reads("both")

    def _reads(self, when: str) -> bool:
        return self.watch is not None and self.watch.when == when and bool(self.features)


@dataclass(frozen=True)
class Span:
    """Where a row's tokens are in prompt + completion."""

    start: int
    """Position of the first."""
    tokens: int
    prompt: int
    """Tokens in the whole prompt."""


@dataclass(frozen=True)
class TapStep:
    """Which rows this forward pass uses; written before the pass, read by the hook."""

    rows: Tensor  # [B] int64
    keep: Tensor  # [B, T] float32, 1 where a delta applies
    encoded: int
    """Columns of the coefficient table in use."""
    watched: int
    """Columns of the watch table in use."""
    top_k: int
    steers: bool
    """False when every row only watches: the hidden states are then left untouched."""
    reads_after: Tensor | None  # [B, 1, 1] bool: read this row's activations after steering; None: no row's
    reads_both: bool
    """Some row is read after steering as well."""
    whole_before: Tensor | None  # [N] int64, b·T + t: tokens whose whole dictionary is read before steering
    whole_after: Tensor | None  # [N] int64: likewise after steering


@dataclass(frozen=True)
class TapOutput:
    """What a pass left behind, still on the device; only the tokens asked for mean anything."""

    ratio: Tensor | None = None  # [B, T] ‖delta‖ / ‖x‖, 0 where nothing was added
    watched: Tensor | None = None  # [B, T, M]
    top_values: Tensor | None = None  # [B, T, k]
    top_indices: Tensor | None = None  # [B, T, k]
    after: "TapOutput | None" = None
    """What was read after steering as well; it has no ratio and no `after`."""


def asked(watch: Watch | None, span: Span) -> list[int]:
    """Offsets of the row's tokens that a watch asks for."""
    if watch is None:
        return []
    generated_from = min(max(span.prompt - span.start, 0), span.tokens)
    match watch.tokens:
        case "all":
            return list(range(span.tokens))
        case "prompt":
            return list(range(generated_from))
        case "generated":
            return list(range(generated_from, span.tokens))


def due(watch: Watch | None, span: Span, sample_every: int) -> list[int]:
    """Those of them at which its `top_k` is read; `sample_every` holds for a watch that does not say."""
    if watch is None or not watch.top_k:
        return []
    every = watch.sample_every or sample_every
    return [offset for offset in asked(watch, span) if (span.start + offset) % every == 0]


@dataclass(frozen=True)
class RowPlan:
    """What one row of a pass needs of the tap."""

    row: TapRow
    asked: list[int]
    due: list[int]
    whole_before: set[int]
    """Tokens at which the whole dictionary is needed before steering."""
    whole_after: set[int]

    @property
    def is_idle(self) -> bool:
        """Nothing to steer or read in this pass."""
        reads_names = self.row.watched and self.asked
        return not (self.row.features or reads_names or self.whole_before or self.whole_after)


def plan_row(row: TapRow, keep: Sequence[bool], span: Span, *, sample_every: int, sparse: bool) -> RowPlan:
    """`sparse`: named features can be read alone; else they too need the whole dictionary, wherever they are read."""
    wanted, sampled = asked(row.watch, span), due(row.watch, span, sample_every)
    read, steered = set(sampled), set[int]()
    if not sparse:
        read.update(wanted if row.watched else ())
        steered.update(offset for offset, kept in enumerate(keep if row.encoded else ()) if kept)
    if row.reads_after:
        return RowPlan(row, wanted, sampled, steered, read)
    return RowPlan(row, wanted, sampled, steered | read, read if row.reads_both else set())
