"""Will it fit? The estimate of a model as it would be loaded here, beside what is free or would become so."""

from collections.abc import Sequence

from millm.desired import WantedModel
from millm.engine.messages import KV_SHARE
from millm.hardware import free_memory
from millm.hub.estimate import Estimate, estimate
from millm.hub.locate import Located
from millm.state import State


def estimate_of(
    state: State, wanted: WantedModel, saes: Sequence[str] = (), *, located: Located | None = None
) -> Estimate:
    """`saes`: ids of the library, counted as attached. Raises ModelNotFound, SaeNotFound, InvalidModel."""
    library, settings = state.hub.library, state.settings
    found = located or library.locate_model(wanted.id)
    device = device_of(state, wanted)
    return estimate(
        found.folder,
        name=found.name,
        device=device,
        quantization=wanted.quantization or settings.quantization,
        dtype=wanted.dtype or settings.dtype,
        context=wanted.context,
        slots=wanted.slots or settings.slots,
        saes=[library.sae(sae) for sae in saes],
        free=free_memory(device),
        evictable=_evictable(state, device),
        kv_share=KV_SHARE["cpu" if device == "cpu" else "cuda"],
        cpu_int8=settings.cpu_int8 == "auto",
    )


def device_of(state: State, wanted: WantedModel) -> str:
    """What `auto` means on this machine."""
    asked = wanted.device or state.settings.device
    platform = state.engine.platform
    if asked == "auto":
        return "cuda:0" if platform and platform.devices else "cpu"
    return "cuda:0" if asked == "cuda" else asked


def sentence(told: Estimate) -> str:
    """Why it is refused, and the way out."""
    return (
        f"{told.model} does not fit on {told.device}: {told.advice} (weights {_gb(told.weights)}, keys and values"
        f" {_gb(told.kv_cache)}, SAEs {_gb(told.saes)}, the rest {_gb((told.activations or 0) + told.overhead)});"
        " `force` loads it all the same"
    )


def _evictable(state: State, device: str) -> int:
    """What the model that is loaded gives back when it goes."""
    if state.model is None or state.asleep or state.model.facts.memory is None:
        return 0
    if state.model.facts.device.partition(":")[0] != device.partition(":")[0]:
        return 0
    return state.model.facts.memory.weights + sum(sae.facts.memory for sae in state.saes.values())


def _gb(size: int | None) -> str:
    return "unknown" if size is None else f"{size / 1e9:.1f} GB"
