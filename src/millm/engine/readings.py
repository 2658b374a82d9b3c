"""What a tap read of one row in the last pass, as plain values: at the tokens its watch asks for, once each."""

from msgspec.structs import replace
from torch import Tensor

from millm.engine.messages import Reading, Watch
from millm.engine.scheduler import Row
from millm.sae.tap import Tap
from millm.sae.tap_step import Span, TapOutput, asked, due

Values = list[tuple[float, ...]]
Tops = dict[int, tuple[tuple[int, float], ...]]
"""By offset: (feature, activation), largest first."""


def span_of(row: Row) -> Span:
    return Span(row.start, len(row.tokens), len(row.sequence.request.prompt))


def readings_of(sae: str, tap: Tap, index: int, row: Row) -> list[Reading]:
    """Of row `index` of the pass. A row that no steering touches reads after it what it reads before."""
    watch = next((watch for watch in row.sequence.watch if watch.sae == sae), None)
    if watch is None:
        return []
    span, read = span_of(row), row.sequence.taps.read
    wanted = [offset for offset in asked(watch, span) if row.start + offset >= read]
    sampled = [offset for offset in due(watch, span, tap.sample_every) if row.start + offset >= read]
    values, top = _read(tap.output, index, watch, wanted, sampled)
    readings = [
        Reading(sae, row.start + offset, some, top.get(offset, ())) for offset, some in zip(wanted, values, strict=True)
    ]
    if watch.when != "both":
        return readings
    steered = tap.output.after if _is_steered(row, sae) else None
    after, top_after = _read(steered or tap.output, index, watch, wanted, sampled)
    return [
        replace(reading, after=some, top_after=top_after.get(offset, ()))
        for reading, offset, some in zip(readings, wanted, after, strict=True)
    ]


def _is_steered(row: Row, sae: str) -> bool:
    """By this SAE: after another's steering, a reading before this hook's is the same as one after it."""
    steering = row.sequence.steering
    return steering is not None and any(tap.sae == sae and tap.features for tap in steering.taps)


def _read(output: TapOutput, index: int, watch: Watch, wanted: list[int], sampled: list[int]) -> tuple[Values, Tops]:
    values = _rows_of(output.watched, index, wanted, len(watch.features))
    top_values = _rows_of(output.top_values, index, sampled, watch.top_k)
    top_indices = _rows_of(output.top_indices, index, sampled, watch.top_k)
    top = {
        offset: tuple((int(j), a) for j, a in zip(i, t, strict=True))
        for offset, i, t in zip(sampled, top_indices, top_values, strict=True)
    }
    return values, top


def _rows_of(table: Tensor | None, index: int, wanted: list[int], width: int) -> Values:
    """`table [B, T, ≥ width]` → the wanted tokens of row `index`, `width` columns each."""
    if table is None or not wanted:
        return [() for _ in wanted]
    return [tuple(row) for row in table[index, wanted, :width].tolist()]
