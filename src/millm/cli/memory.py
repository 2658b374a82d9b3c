"""How much memory a model would take, as a table of bars: an estimate in, something to print out."""

from collections.abc import Sequence

from rich.console import Group, RenderableType

from millm.cli.columns import plain, table
from millm.cli.ids import Id
from millm.cli.quantities import number, size
from millm.hub.estimate import Estimate

BAR = 24
"""Characters of the longest bar."""
_VERDICTS = {"fits": "fits", "does_not_fit": "does not fit", "unknown": "unknown: the files do not say enough"}


def breakdown(estimate: Estimate) -> RenderableType:
    """Each part and its share of the whole."""
    parts = _parts(estimate)
    largest = max((count or 0 for _, count in parts), default=0)
    rows = [(name, size(count), bar(count, largest)) for name, count in parts]
    rows += [("total", size(estimate.total), _room(estimate))]
    return Group(
        Id(estimate.model),
        plain(f"on {estimate.device}, {_weights(estimate)}, {_context(estimate)}"),
        plain(""),
        table(("PART", ">SIZE", ""), rows),
        *(plain(line) for line in _words(estimate)),
    )


def comparison(estimates: Sequence[Estimate]) -> RenderableType:
    """The same model with its weights in more and fewer bits."""
    rows = [
        (estimate.quantization, size(estimate.weights), size(estimate.total), size(estimate.free), verdict(estimate))
        for estimate in estimates
    ]
    return table(("QUANTIZATION", ">WEIGHTS", ">TOTAL", ">FREE", "VERDICT"), rows)


def verdict(estimate: Estimate) -> str:
    return _VERDICTS[estimate.verdict]


def bar(count: int | None, largest: int) -> str:
    """At least one character of what is there at all."""
    if not count or not largest:
        return ""
    return "█" * max(1, round(BAR * count / largest))


def _parts(estimate: Estimate) -> list[tuple[str, int | None]]:
    parts: list[tuple[str, int | None]] = [("weights", estimate.weights), ("keys and values", estimate.kv_cache)]
    if estimate.saes:
        parts.append(("SAEs", estimate.saes))
    return [*parts, ("activations", estimate.activations), ("overhead", estimate.overhead)]


def _weights(estimate: Estimate) -> str:
    return estimate.dtype if estimate.quantization == "none" else f"{estimate.quantization} ({estimate.dtype})"


def _context(estimate: Estimate) -> str:
    return "context unknown" if estimate.context is None else f"one sequence of {number(estimate.context)} tokens"


def _room(estimate: Estimate) -> str:
    if estimate.free is None:
        return "of an unknown room"
    evicted = f" + {size(estimate.evictable)} that would go first" if estimate.evictable else ""
    return f"of {size(estimate.free)} free{evicted}"


def _words(estimate: Estimate) -> list[str]:
    all_slots = (
        f"{estimate.slots} such sequences at once would take {size(estimate.kv_cache_all)} for keys and values"
        if estimate.kv_cache_all is not None and estimate.slots > 1
        else ""
    )
    reads = estimate.while_loading or 0
    peak = f"while they are read, the weights take {size(reads)}" if reads > (estimate.weights or 0) else ""
    advice = f"; {estimate.advice}" if estimate.advice else ""
    return [line for line in (peak, all_slots, f"verdict: {verdict(estimate)}{advice}") if line]
