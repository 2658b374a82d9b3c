"""How much memory a model would take, as a table of bars: an estimate in, something to print out."""

from collections.abc import Sequence

from rich.console import Group, RenderableType

from millm.cli.columns import plain_text, table
from millm.cli.ids import IdText
from millm.cli.quantities import format_bytes, format_count
from millm.hub.memory_estimate import Estimate

BAR_WIDTH = 24
"""Characters of the longest bar."""
_VERDICTS = {"fits": "fits", "does_not_fit": "does not fit", "unknown": "unknown: the files do not say enough"}


def estimate_table(estimate: Estimate) -> RenderableType:
    """Each part and its share of the whole."""
    parts = _estimate_parts(estimate)
    largest = max((count or 0 for _, count in parts), default=0)
    rows = [(name, format_bytes(count), bar_text(count, largest)) for name, count in parts]
    rows += [("total", format_bytes(estimate.total), _free_memory_text(estimate))]
    return Group(
        IdText(estimate.model),
        plain_text(f"on {estimate.device}, {_estimate_weights(estimate)}, {_context_text(estimate)}"),
        plain_text(""),
        table(("PART", ">SIZE", ""), rows),
        *(plain_text(line) for line in _estimate_notes(estimate)),
    )


def quantizations_table(estimates: Sequence[Estimate]) -> RenderableType:
    """The same model with its weights in more and fewer bits."""
    rows = [
        (
            estimate.quantization,
            format_bytes(estimate.weights),
            format_bytes(estimate.total),
            format_bytes(estimate.free),
            verdict_text(estimate),
        )
        for estimate in estimates
    ]
    return table(("QUANTIZATION", ">WEIGHTS", ">TOTAL", ">FREE", "VERDICT"), rows)


def verdict_text(estimate: Estimate) -> str:
    return _VERDICTS[estimate.verdict]


def bar_text(count: int | None, largest: int) -> str:
    """At least one character of what is there at all."""
    if not count or not largest:
        return ""
    return "█" * max(1, round(BAR_WIDTH * count / largest))


def _estimate_parts(estimate: Estimate) -> list[tuple[str, int | None]]:
    parts: list[tuple[str, int | None]] = [("weights", estimate.weights), ("keys and values", estimate.kv_cache)]
    if estimate.saes:
        parts.append(("SAEs", estimate.saes))
    return [*parts, ("activations", estimate.activations), ("overhead", estimate.overhead)]


def _estimate_weights(estimate: Estimate) -> str:
    return estimate.dtype if estimate.quantization == "none" else f"{estimate.quantization} ({estimate.dtype})"


def _context_text(estimate: Estimate) -> str:
    return "context unknown" if estimate.context is None else f"one sequence of {format_count(estimate.context)} tokens"


def _free_memory_text(estimate: Estimate) -> str:
    if estimate.free is None:
        return "of an unknown room"
    evicted = f" + {format_bytes(estimate.evictable)} that would go first" if estimate.evictable else ""
    return f"of {format_bytes(estimate.free)} free{evicted}"


def _estimate_notes(estimate: Estimate) -> list[str]:
    all_slots = (
        f"{estimate.slots} such sequences at once would take {format_bytes(estimate.kv_cache_all)} for keys and values"
        if estimate.kv_cache_all is not None and estimate.slots > 1
        else ""
    )
    reads = estimate.while_loading or 0
    peak = f"while they are read, the weights take {format_bytes(reads)}" if reads > (estimate.weights or 0) else ""
    advice = f"; {estimate.advice}" if estimate.advice else ""
    return [line for line in (peak, all_slots, f"verdict: {verdict_text(estimate)}{advice}") if line]
