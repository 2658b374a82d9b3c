"""Will it fit? The estimate of a model as it would be loaded here, beside what is free or would become so."""

from collections.abc import Sequence

from millm.engine.messages import KV_CACHE_MEMORY_SHARE
from millm.hardware import free_memory
from millm.hub.locate import LocalCheckpoint
from millm.hub.memory_estimate import Estimate, estimate
from millm.state import State
from millm.status import ModelSpec


def estimate_memory(
    state: State, spec: ModelSpec, saes: Sequence[str] = (), *, location: LocalCheckpoint | None = None
) -> Estimate:
    """`saes`: ids of the library, counted as attached. Raises ModelNotFound, SaeNotFound, InvalidModel."""
    library, settings = state.hub.library, state.settings
    found = location or library.locate_model(spec.id)
    device = resolve_device(state, spec)
    return estimate(
        found.folder,
        name=found.name,
        device=device,
        quantization=spec.quantization or settings.quantization,
        dtype=spec.dtype or settings.dtype,
        context=spec.context,
        slots=spec.slots or settings.slots,
        saes=[library.sae(sae) for sae in saes],
        free=free_memory(device),
        evictable=_evictable_bytes(state, device),
        kv_share=KV_CACHE_MEMORY_SHARE["cpu" if device == "cpu" else "cuda"],
        cpu_int8=settings.cpu_int8 == "auto",
    )


def resolve_device(state: State, spec: ModelSpec) -> str:
    """What `auto` means on this machine."""
    asked = spec.device or state.settings.device
    platform = state.engine.platform
    if asked == "auto":
        return "cuda:0" if platform and platform.devices else "cpu"
    return "cuda:0" if asked == "cuda" else asked


def too_large_message(estimate: Estimate) -> str:
    """Why it is refused, and the way out."""
    return (
        f"{estimate.model} does not fit on {estimate.device}: {estimate.advice} (weights {_gigabytes(estimate.weights)}, keys and values"
        f" {_gigabytes(estimate.kv_cache)}, SAEs {_gigabytes(estimate.saes)}, the rest {_gigabytes((estimate.activations or 0) + estimate.overhead)});"
        " `force` loads it all the same"
    )


def _evictable_bytes(state: State, device: str) -> int:
    """What the model that is loaded gives back when it goes."""
    if state.model is None or state.asleep or state.model.facts.memory is None:
        return 0
    if state.model.facts.device.partition(":")[0] != device.partition(":")[0]:
        return 0
    return state.model.facts.memory.weights + sum(sae.facts.memory for sae in state.saes.values())


def _gigabytes(size: int | None) -> str:
    return "unknown" if size is None else f"{size / 1e9:.1f} GB"
