"""What a tap read of one row in the last pass, as plain values: at the tokens its watch asks for, once each."""

from msgspec.structs import replace
from torch import Tensor

from millm.engine.messages import Reading
from millm.engine.scheduler import ScheduledRow
from millm.sae.hook_step import HookOutput, TokenSpan, offsets_to_sample, offsets_to_watch
from millm.sae.steering import Watch
from millm.sae.steering_hook import SteeringHook

ValueRows = list[tuple[float, ...]]
TopByOffset = dict[int, tuple[tuple[int, float], ...]]
"""By offset: (feature, activation), largest first."""


def token_span(row: ScheduledRow) -> TokenSpan:
    return TokenSpan(row.start, len(row.tokens), len(row.sequence.request.prompt))


def row_readings(sae: str, hook: SteeringHook, index: int, row: ScheduledRow) -> list[Reading]:
    """Of row `index` of the pass. A row that no steering touches reads after it what it reads before."""
    watch = next((watch for watch in row.sequence.watch if watch.sae == sae), None)
    if watch is None:
        return []
    span, read = token_span(row), row.sequence.hook_state.read
    wanted = [offset for offset in offsets_to_watch(watch, span) if row.start + offset >= read]
    sampled = [offset for offset in offsets_to_sample(watch, span, hook.sample_every) if row.start + offset >= read]
    values, top = _select_values(hook.output, index, watch, wanted, sampled)
    readings = [
        Reading(sae, row.start + offset, some, top.get(offset, ())) for offset, some in zip(wanted, values, strict=True)
    ]
    if watch.when != "both":
        return readings
    steered = hook.output.after if _is_steered(row, sae) else None
    after, top_after = _select_values(steered or hook.output, index, watch, wanted, sampled)
    return [
        replace(reading, after=some, top_after=top_after.get(offset, ()))
        for reading, offset, some in zip(readings, wanted, after, strict=True)
    ]


def _is_steered(row: ScheduledRow, sae: str) -> bool:
    """By this SAE: after another's steering, a reading before this hook's is the same as one after it."""
    steering = row.sequence.steering
    return steering is not None and any(tap.sae == sae and tap.features for tap in steering.by_sae)


def _select_values(
    output: HookOutput, index: int, watch: Watch, offsets: list[int], sampled_offsets: list[int]
) -> tuple[ValueRows, TopByOffset]:
    values = _select_rows(output.watched, index, offsets, len(watch.features))
    top_values = _select_rows(output.top_values, index, sampled_offsets, watch.top_k)
    top_indices = _select_rows(output.top_indices, index, sampled_offsets, watch.top_k)
    top = {
        offset: tuple((int(j), a) for j, a in zip(i, t, strict=True))
        for offset, i, t in zip(sampled_offsets, top_indices, top_values, strict=True)
    }
    return values, top


def _select_rows(table: Tensor | None, index: int, offsets: list[int], width: int) -> ValueRows:
    """`table [B, T, ≥ width]` → the wanted tokens of row `index`, `width` columns each."""
    if table is None or not offsets:
        return [() for _ in offsets]
    return [tuple(row) for row in table[index, offsets, :width].tolist()]
