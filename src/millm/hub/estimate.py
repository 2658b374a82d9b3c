"""How much memory a model would take, from the headers of its files alone: before anything is loaded."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import msgspec

from millm.errors import InvalidModel
from millm.hub import footprint
from millm.hub.entries import SaeEntry
from millm.hub.footprint import Checkpoint
from millm.hub.model_told import max_context_length

Verdict = Literal["fits", "does_not_fit", "unknown"]
Quantization = Literal["none", "8bit", "4bit"]

DEFAULT_CONTEXT = 4096
"""Tokens, where nobody says how many; a model that takes fewer is asked for those."""
OVERHEAD_BYTES = {"cuda": 512 << 20, "cpu": 384 << 20}
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
    checkpoint = _read_checkpoint(source) if isinstance(source, Path) else source
    made_in = checkpoint.resolve_dtype(dtype, device)
    length = context or min(DEFAULT_CONTEXT, max_context_length(checkpoint.config) or DEFAULT_CONTEXT)
    row = footprint.kv_cache_bytes(checkpoint, made_in, length)
    packs = cpu_int8 and footprint.is_packed_int8(checkpoint, device, dtype, quantization)
    found = _with_total(
        Estimate(
            model=name,
            device=device,
            quantization=quantization,
            dtype=made_in,
            context=length,
            slots=slots,
            weights=_estimate_weights(checkpoint, made_in, quantization, packs=packs),
            while_loading=(footprint.float32_copy_bytes(checkpoint) or None) if packs else None,
            kv_cache=row,
            kv_cache_all=None if row is None else row * slots,
            saes=sum(_estimate_sae(entry) for entry in saes),
            activations=footprint.activation_bytes(checkpoint, made_in, device, slots),
            overhead=_overhead_bytes(device),
            total=None,
            free=free,
            evictable=evictable,
            verdict="unknown",
        )
    )
    return msgspec.structs.replace(found, verdict=_verdict(found), advice=_advice(found, checkpoint, kv_share))


def _read_checkpoint(folder: Path) -> Checkpoint:
    try:
        return Checkpoint.from_folder(folder)
    except (InvalidModel, OSError):
        return Checkpoint({}, ())


def _estimate_weights(checkpoint: Checkpoint, dtype: str, quantization: str, *, packs: bool) -> int | None:
    if not checkpoint.tensors:
        return None
    return footprint.int8_weight_bytes(checkpoint) if packs else footprint.weight_bytes(checkpoint, dtype, quantization)


def _estimate_sae(entry: SaeEntry) -> int:
    """One whose shape is not known: as much as its files."""
    if entry.d_in is None or entry.width is None:
        return entry.size
    return footprint.sae_bytes(entry.d_in, entry.width, entry.architecture or "standard")


def _overhead_bytes(device: str) -> int:
    return OVERHEAD_BYTES["cpu" if device == "cpu" else "cuda"]


def _with_total(found: Estimate) -> Estimate:
    if found.weights is None or found.kv_cache is None or found.activations is None:
        return found
    total = found.weights + found.kv_cache + found.saes + found.activations + found.overhead
    return msgspec.structs.replace(found, total=total)


def minimum_bytes(found: Estimate) -> int:
    """Bytes without which it certainly cannot be loaded."""
    return max(found.total or 0, (found.weights or 0) + found.overhead, (found.while_loading or 0) + found.overhead)


def _verdict(found: Estimate) -> Verdict:
    if found.free is None or found.weights is None:
        return "unknown"
    if minimum_bytes(found) > found.free + found.evictable:
        return "does_not_fit"
    return "unknown" if found.total is None else "fits"


def _advice(found: Estimate, checkpoint: Checkpoint, kv_share: float) -> str:
    verdict = _verdict(found)
    if verdict == "fits":
        return _concurrency_advice(found, kv_share)
    if verdict == "unknown" or found.free is None:
        return ""
    room = found.free + found.evictable
    short = f"it needs {_gb(minimum_bytes(found))} and {_gb(room)} can be had"
    return f"{short}; {_reduction_advice(found, checkpoint, room)}"


def _reduction_advice(found: Estimate, checkpoint: Checkpoint, available: int) -> str:
    """The first change that would make it fit, from the least to the most."""
    weights, rest = found.weights or 0, (found.total or found.overhead) - (found.weights or 0)
    shortest = max(weights + rest - (found.kv_cache or 0), (found.while_loading or 0) + found.overhead)
    if found.kv_cache and shortest <= available:
        return "ask for a shorter context"
    if found.quantization == "none":
        for bits in ("8bit", "4bit"):
            smaller = footprint.weight_bytes(checkpoint, found.dtype, bits) + rest
            if smaller <= available:
                return f"quantization {bits} needs about {_gb(smaller)}"
    return "choose a smaller model, or `force` to try all the same"


def _concurrency_advice(found: Estimate, kv_share: float) -> str:
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
