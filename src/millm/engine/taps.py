"""Every attached SAE's tap, worked together: rows for a step, readings and receipts out of it."""

from collections import defaultdict
from collections.abc import Sequence as Sequence_
from dataclasses import dataclass, field

import torch
from torch.utils.hooks import RemovableHandle

from millm.engine.messages import Generate, Reading, Receipt, SaeFacts
from millm.engine.scheduler import Row
from millm.engine.sequence import Sequence
from millm.errors import InvalidSteering, SaeMismatch
from millm.sae.hooks import HookPoint
from millm.sae.steering import Steering
from millm.sae.tap import Tap
from millm.sae.tap_step import Span, TapRow, asked, due


@dataclass(frozen=True)
class Attachment:
    tap: Tap
    point: HookPoint
    handle: RemovableHandle
    facts: SaeFacts


@dataclass
class SequenceTaps:
    """What the taps remember of one sequence."""

    rows: dict[str, int]
    """Table row per SAE."""
    ratios: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    """Σ ‖delta‖/‖x‖ per SAE."""
    steered: int = 0
    """Positions at which a delta was added."""


class Taps:
    def __init__(self, special_ids: frozenset[int] = frozenset()) -> None:
        self._attached: dict[str, Attachment] = {}
        self._special_ids = special_ids

    def check_free(self, sae: str, point: HookPoint) -> None:
        for name, attached in self._attached.items():
            if name == sae:
                raise SaeMismatch(f"an SAE named {sae!r} is already attached; give this one another name")
            if attached.point.name == point.name:
                raise SaeMismatch(f"{point.name} already has SAE {name!r} attached; a hook point takes one")

    def attach(self, tap: Tap, point: HookPoint, facts: SaeFacts) -> None:
        self.check_free(facts.sae, point)
        self._attached[facts.sae] = Attachment(tap, point, point.register(tap), facts)

    def remove_all(self) -> None:
        for attached in self._attached.values():
            attached.handle.remove()
        self._attached.clear()

    def start(self, sequence: Sequence) -> None:
        """Take a table row in every tap the request steers or watches; `finish` gives back those that were taken.

        Raises InvalidSteering or InsufficientMemory.
        """
        sequence.taps = SequenceTaps({})
        for sae, row in tap_rows(sequence.request).items():
            sequence.taps.rows[sae] = self._tap(sae, row).acquire(row)

    def finish(self, sequence: Sequence) -> Receipt | None:
        """Give the rows back; → what was really done to the sequence."""
        state: SequenceTaps | None = sequence.taps
        if state is None:
            return None
        self._release(state.rows)
        sequence.taps = None
        steering = sequence.request.steering
        if steering is None:
            return None
        mean = max((total / max(state.steered, 1) for total in state.ratios.values()), default=0.0)
        return Receipt(fingerprint=steering.fingerprint, tokens_steered=state.steered, delta_norm_ratio=mean)

    def prepare(self, rows: Sequence_[Row]) -> None:
        """Set every tap for one forward pass over `rows` (all of one length)."""
        keep, spans = [self._keep(row) for row in rows], [_span(row) for row in rows]
        for sae, attached in self._attached.items():
            attached.tap.prepare([row.sequence.taps.rows.get(sae, 0) for row in rows], keep, spans)

    def rest(self) -> None:
        """Let the next pass go through untouched: nothing of the last step is left in a tap."""
        self.prepare(())

    def collect(self, rows: Sequence_[Row]) -> list[tuple[Reading, ...]]:
        """After the pass: add to the receipts; → readings per row."""
        for row in rows:
            row.sequence.taps.steered += sum(self._keep(row))
        readings: list[list[Reading]] = [[] for _ in rows]
        for sae, attached in self._attached.items():
            self._collect_ratio(sae, attached.tap, rows)
            for index, row in enumerate(rows):
                readings[index] += _readings(sae, attached.tap, index, row)
        return [tuple(found) for found in readings]

    def _collect_ratio(self, sae: str, tap: Tap, rows: Sequence_[Row]) -> None:
        if tap.output.ratio is None:
            return
        for row, ratio in zip(rows, tap.output.ratio.sum(dim=-1).tolist(), strict=True):
            if row.sequence.request.steering:
                row.sequence.taps.ratios[sae] += ratio

    def _tap(self, sae: str, row: TapRow) -> Tap:
        attached = self._attached.get(sae)
        if attached is None:
            raise InvalidSteering(f"no SAE named {sae!r} is attached")
        if row.features and not attached.facts.steerable:
            raise InvalidSteering(f"SAE {sae!r} can be watched but not steered: its output is not this hook point")
        features = attached.facts.features
        for index in (*(feature.index for feature in row.features), *row.watched):
            if not 0 <= index < features:
                raise InvalidSteering(f"feature {index} is not in 0..{features - 1} of SAE {sae!r}")
        return attached.tap

    def _release(self, rows: dict[str, int]) -> None:
        for sae, index in rows.items():
            self._attached[sae].tap.release(index)
        rows.clear()

    def _keep(self, row: Row) -> list[bool]:
        """Per token of the row: does the steering apply there?"""
        steering = row.sequence.request.steering
        if steering is None:
            return [False] * len(row.tokens)
        prompt_length = len(row.sequence.request.prompt)
        return [
            self._applies(steering, position, token, prompt_length)
            for position, token in enumerate(row.tokens, start=row.start)
        ]

    def _applies(self, steering: Steering, position: int, token: int, prompt_length: int) -> bool:
        if steering.skip != "none" and position == 0:
            return False
        if steering.skip == "special" and token in self._special_ids:
            return False
        if steering.positions == "prompt":
            return position < prompt_length
        if steering.positions == "generated":
            return position >= prompt_length - 1
        return True


def tap_rows(request: Generate) -> dict[str, TapRow]:
    """What the request wants of each SAE."""
    features = {tap.sae: tap.features for tap in request.steering.taps} if request.steering else {}
    watches = {watch.sae: watch for watch in request.watch}
    return {sae: TapRow(features.get(sae, ()), watches.get(sae)) for sae in {**features, **watches}}


def _span(row: Row) -> Span:
    return Span(row.start, len(row.tokens), len(row.sequence.request.prompt))


def _readings(sae: str, tap: Tap, index: int, row: Row) -> list[Reading]:
    """Readings of row `index` of the last pass, at the tokens its watch asks for."""
    watch = next((watch for watch in row.sequence.request.watch if watch.sae == sae), None)
    if watch is None:
        return []
    wanted, sampled = asked(watch, _span(row)), due(watch, _span(row), tap.sample_every)
    values = _rows_of(tap.output.watched, index, wanted, len(watch.features))
    top_values = _rows_of(tap.output.top_values, index, sampled, watch.top_k)
    top_indices = _rows_of(tap.output.top_indices, index, sampled, watch.top_k)
    top = {
        offset: tuple((int(j), a) for j, a in zip(i, t, strict=True))
        for offset, i, t in zip(sampled, top_indices, top_values, strict=True)
    }
    return [
        Reading(sae, row.start + offset, tuple(v), top.get(offset, ()))
        for offset, v in zip(wanted, values, strict=True)
    ]


def _rows_of(table: torch.Tensor | None, index: int, wanted: list[int], width: int) -> list[list[float]]:
    """`table [B, T, ≥ width]` → the wanted tokens of row `index`, `width` columns each."""
    if table is None or not wanted:
        return [[] for _ in wanted]
    picked: list[list[float]] = table[index, wanted, :width].tolist()
    return picked
