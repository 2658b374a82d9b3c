"""How much memory a model would take, from the headers of its files alone: before anything is loaded."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import msgspec

from millm.errors import InvalidModel
from millm.hub import footprint
from millm.hub.entries import SaeEntry
from millm.hub.footprint import Checkpoint
from millm.hub.model_told import context_of

Verdict = Literal["fits", "does_not_fit", "unknown"]
Quantization = Literal["none", "8bit", "4bit"]

USUAL_CONTEXT = 4096
"""Tokens, where nobody says how many; a model that takes fewer is asked for those."""
OVERHEAD = {"cuda": 512 << 20, "cpu": 384 << 20}
"""What the process takes with no model in it: CUDA's context and its libraries' workspace; Python with torch."""


class Estimate(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes on the device, part by part; None where the files do not say."""

    model: str
    device: str
    """`cpu`, `cuda:0`…"""
    quantization: str
    dtype: str
    context: int | None
    slots: int
    weights: int | None
    while_loading: int | None = None
    """What the weights take at most while they are read, where that is more than what stays of them."""
    kv_cache: int | None
    """Keys and values of one sequence of `context` tokens: the least that is of use."""
    kv_cache_all: int | None
    """Of `slots` such sequences at once."""
    saes: int
    activations: int | None
    overhead: int
    total: int | None
    """Of weights, one sequence, SAEs, activations and overhead."""
    free: int | None
    """What the device has free now."""
    evictable: int = 0
    """What would be freed because it goes first: the model that is loaded, with its SAEs and keys."""
    verdict: Verdict
    advice: str = ""
    """What to do when it does not fit."""


def estimate(
    source: Path | Checkpoint,
    *,
    name: str,
    device: str,
    quantization: Quantization = "none",
    dtype: str = "auto",
    context: int | None = None,
    slots: int = 1,
    saes: Sequence[SaeEntry] = (),
    free: int | None = None,
    evictable: int = 0,
    kv_share: float = 1.0,
    cpu_int8: bool = True,
) -> Estimate:
    """`device`: `cpu` or `cuda:N`, decided; `kv_share`: of what is left after the load, how much keys and values get.

    What cannot be told is None and the verdict then `unknown`: no reason to refuse. Raises nothing for damaged files.
    """
    checkpoint = _readable(source) if isinstance(source, Path) else source
    made_in = checkpoint.dtype(dtype, device)
    length = context or min(USUAL_CONTEXT, context_of(checkpoint.config) or USUAL_CONTEXT)
    row = footprint.kv_cache(checkpoint, made_in, length)
    packs = cpu_int8 and footprint.is_packed_int8(checkpoint, device, dtype, quantization)
    found = _with_total(
        Estimate(
            model=name,
            device=device,
            quantization=quantization,
            dtype=made_in,
            context=length,
            slots=slots,
            weights=_weights(checkpoint, made_in, quantization, packs=packs),
            while_loading=(footprint.widened(checkpoint) or None) if packs else None,
            kv_cache=row,
            kv_cache_all=None if row is None else row * slots,
            saes=sum(_sae(entry) for entry in saes),
            activations=footprint.activations(checkpoint, made_in, device, slots),
            overhead=_overhead(device),
            total=None,
            free=free,
            evictable=evictable,
            verdict="unknown",
        )
    )
    return msgspec.structs.replace(found, verdict=_verdict(found), advice=_advice(found, checkpoint, kv_share))


def _readable(folder: Path) -> Checkpoint:
    try:
        return Checkpoint.of(folder)
    except (InvalidModel, OSError):
        return Checkpoint({}, ())


def _weights(checkpoint: Checkpoint, dtype: str, quantization: str, *, packs: bool) -> int | None:
    if not checkpoint.tensors:
        return None
    return footprint.int8_weights(checkpoint) if packs else footprint.weights(checkpoint, dtype, quantization)


def _sae(entry: SaeEntry) -> int:
    """One whose shape is not known: as much as its files."""
    if entry.d_in is None or entry.width is None:
        return entry.size
    return footprint.sae(entry.d_in, entry.width, entry.architecture or "standard")


def _overhead(device: str) -> int:
    return OVERHEAD["cpu" if device == "cpu" else "cuda"]


def _with_total(found: Estimate) -> Estimate:
    if found.weights is None or found.kv_cache is None or found.activations is None:
        return found
    total = found.weights + found.kv_cache + found.saes + found.activations + found.overhead
    return msgspec.structs.replace(found, total=total)


def least(found: Estimate) -> int:
    """Bytes without which it certainly cannot be loaded."""
    return max(found.total or 0, (found.weights or 0) + found.overhead, (found.while_loading or 0) + found.overhead)


def _verdict(found: Estimate) -> Verdict:
    if found.free is None or found.weights is None:
        return "unknown"
    if least(found) > found.free + found.evictable:
        return "does_not_fit"
    return "unknown" if found.total is None else "fits"


def _advice(found: Estimate, checkpoint: Checkpoint, kv_share: float) -> str:
    verdict = _verdict(found)
    if verdict == "fits":
        return _how_many(found, kv_share)
    if verdict == "unknown" or found.free is None:
        return ""
    room = found.free + found.evictable
    short = f"it needs {_gb(least(found))} and {_gb(room)} can be had"
    return f"{short}; {_way_out(found, checkpoint, room)}"


def _way_out(found: Estimate, checkpoint: Checkpoint, room: int) -> str:
    """The first change that would make it fit, from the least to the most."""
    weights, rest = found.weights or 0, (found.total or found.overhead) - (found.weights or 0)
    shortest = max(weights + rest - (found.kv_cache or 0), (found.while_loading or 0) + found.overhead)
    if found.kv_cache and shortest <= room:
        return "ask for a shorter context"
    if found.quantization == "none":
        for bits in ("8bit", "4bit"):
            smaller = footprint.weights(checkpoint, found.dtype, bits) + rest
            if smaller <= room:
                return f"quantization {bits} needs about {_gb(smaller)}"
    return "choose a smaller model, or `force` to try all the same"


def _how_many(found: Estimate, kv_share: float) -> str:
    """Of the sequences that may run at once, how many of this length there is room for."""
    if found.free is None or not found.kv_cache or found.total is None:
        return ""
    left = found.free + found.evictable - (found.total - found.kv_cache)
    together = max(int(left * kv_share) // found.kv_cache, 1)
    if together >= found.slots:
        return ""
    return f"{together} of {found.slots} sequences of {found.context:,} tokens run at once; the others wait"


def _gb(count: int) -> str:
    return f"{count / 1e9:.1f} GB"
