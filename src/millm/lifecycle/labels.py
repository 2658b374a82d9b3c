"""Writing down what features mean, while their SAE is attached: the unit `max_act` means the new maxima from then on.

A steering that is active keeps the strengths that it was made with.
"""

import asyncio
from collections.abc import Sequence

from millm.hub.labels import Label
from millm.loaded import AttachedSae
from millm.state import State


async def store_labels(state: State, sae: str, labels: Sequence[Label], source: str) -> None:
    """Raises InvalidImport or NotStored; nothing has changed then."""
    await asyncio.to_thread(state.labels.put, sae, labels, source)
    await _refresh_max_acts(state, sae)


async def remove_label(state: State, sae: str, index: int) -> Label | None:
    """What was written here about a feature is taken back; → what is left. Raises NotStored."""
    left = await asyncio.to_thread(state.labels.remove, sae, index)
    await _refresh_max_acts(state, sae)
    return left


async def _refresh_max_acts(state: State, sae: str) -> None:
    maxima = await asyncio.to_thread(state.labels.max_acts, sae)
    attached = state.saes.get(sae)
    if attached:
        state.saes = {**state.saes, sae: AttachedSae(attached.facts, maxima)}
