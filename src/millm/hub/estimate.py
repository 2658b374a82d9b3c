"""How much memory a model would take, from the headers of its files alone: before anything is loaded."""

from typing import Literal

import msgspec

Verdict = Literal["fits", "does_not_fit", "unknown"]


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
