"""Loads, replaces and unloads the model, with its memory estimate and the text assets of the API process."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import structlog

from millm.engine.messages import KV_CACHE_MEMORY_SHARE, LoadModel, ModelFacts
from millm.engine.supervisor import EngineSnapshot
from millm.errors import MillmError, ModelNotLoaded, ModelTooLarge
from millm.hardware import free_memory
from millm.hub.locate import LocalCheckpoint
from millm.hub.memory_estimate import Estimate, estimate, minimum_bytes
from millm.lifecycle.changes import ProgressCallback, external_folder, run_change, wake_within_change
from millm.lifecycle.steering import store_desired
from millm.loaded import LoadedModel
from millm.state import State, StateSnapshot
from millm.status import ChangeInProgress, DesiredState, ModelSpec
from millm.text.chat_template import ChatTemplate
from millm.text.model_folder import EmbeddingConfig, is_generative_model
from millm.text.response_parser import ResponseTemplate
from millm.text.tokenizer import Tokenizer

log = structlog.get_logger()
REPLACED_MESSAGE = "another model is being loaded; try again in a moment"
UNLOADED_MESSAGE = "the model is being unloaded"


def estimate_memory(
    state: State, spec: ModelSpec, saes: Sequence[str] = (), *, location: LocalCheckpoint | None = None
) -> Estimate:
    """`saes`: library ids, counted as attached. Raises ModelNotFound, SaeNotFound, InvalidModel."""
    library, settings = state.hub.library, state.settings
    location = location or library.locate_model(spec.id)
    device = resolve_device(state, spec)
    return estimate(
        location.folder,
        name=location.name,
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
    """The device, with `auto` and `cuda` resolved for this machine."""
    device = spec.device or state.settings.device
    platform = state.engine.platform
    if device == "auto":
        return "cuda:0" if platform and platform.devices else "cpu"
    return "cuda:0" if device == "cuda" else device


def too_large_message(estimate: Estimate) -> str:
    rest = (estimate.activations or 0) + estimate.overhead
    return (
        f"{estimate.model} does not fit on {estimate.device}: {estimate.advice} (weights"
        f" {_gigabytes(estimate.weights)}, keys and values {_gigabytes(estimate.kv_cache)}, SAEs"
        f" {_gigabytes(estimate.saes)}, the rest {_gigabytes(rest)}); `force` loads it all the same"
    )


def _evictable_bytes(state: State, device: str) -> int:
    """Memory that unloading the current model frees on `device`."""
    if state.model is None or state.asleep or state.model.facts.memory is None:
        return 0
    if state.model.facts.device.partition(":")[0] != device.partition(":")[0]:
        return 0
    return state.model.facts.memory.weights + sum(sae.facts.memory for sae in state.saes.values())


def _gigabytes(size: int | None) -> str:
    return "unknown" if size is None else f"{size / 1e9:.1f} GB"


@dataclass(frozen=True)
class TextAssets:
    """The files of a model's folder that the API process uses."""

    tokenizer: Tokenizer
    chat_template: ChatTemplate
    response_template: ResponseTemplate | None
    embedding_recipe: EmbeddingConfig
    can_generate: bool

    @classmethod
    def from_folder(cls, folder: Path) -> "TextAssets":
        """Raises InvalidModel."""
        can_generate = is_generative_model(folder)
        tokenizer = Tokenizer.from_folder(folder, is_generative=can_generate)
        return cls(
            tokenizer,
            ChatTemplate.from_folder(folder, tokenizer),
            ResponseTemplate.from_folder(folder),
            EmbeddingConfig.from_folder(folder),
            can_generate,
        )


async def load(
    state: State,
    spec: ModelSpec,
    *,
    location: LocalCheckpoint | None = None,
    force: bool = False,
    on_progress: ProgressCallback | None = None,
) -> LoadedModel:
    """Replace the loaded model. `location`: a folder outside the library; `force`: ignore the memory estimate.

    Raises ModelNotFound, InvalidModel, ModelTooLarge or an engine error; the previous model then stays or is restored.
    """
    change = ChangeInProgress(what="load", name=spec.id)
    return await run_change(state, change, lambda report: _load(state, spec, location, force, report), on_progress)


async def unload(state: State) -> None:
    """Unload after running answers end, or after `MILLM_DRAIN_TIMEOUT`."""
    name = state.model.name if state.model else ""
    await run_change(state, ChangeInProgress(what="unload", name=name), lambda _: _unload(state))


def cancel_load(state: State) -> None:
    """Cancel the current load at its next progress report. Raises ModelNotLoaded without one."""
    if state.load_in_progress is None:
        raise ModelNotLoaded("no load is in progress")
    state.engine.cancel_load(state.load_in_progress)


@dataclass(frozen=True)
class _LoadPlan:
    """A load that passed all checks."""

    location: LocalCheckpoint
    folder: str | None
    """`external_folder` of the location."""
    text: TextAssets
    estimate: Estimate
    command: LoadModel


async def _load(
    state: State, spec: ModelSpec, location: LocalCheckpoint | None, force: bool, on_progress: ProgressCallback
) -> LoadedModel:
    if state.model and state.desired.model == spec:
        await wake_within_change(state)  # also restores its SAEs
        if state.status == "ready":
            return state.model
    plan = await _plan_load(state, spec, location, force)
    engine_before, before = state.engine.snapshot, state.snapshot
    await _drain(state, REPLACED_MESSAGE)
    try:
        facts = await _load_in_engine(state, plan.command, on_progress)
        state.set_model(_loaded_model(plan, facts))
        await store_desired(state, DesiredState(model=spec, folder=plan.folder))
    except MillmError:
        await _roll_back(state, engine_before, before)
        raise
    finally:
        state.engine.reopen()
    return state.model_or_raise()


async def _load_in_engine(state: State, command: LoadModel, on_progress: ProgressCallback) -> ModelFacts:
    state.load_in_progress = command
    try:
        return await state.engine.load(command, on_progress)
    finally:
        state.load_in_progress = None


def _loaded_model(plan: _LoadPlan, facts: ModelFacts) -> LoadedModel:
    text = plan.text
    return LoadedModel(
        plan.location.name,
        facts,
        text.tokenizer,
        text.chat_template,
        text.response_template,
        text.embedding_recipe,
        estimate=plan.estimate,
    )


async def _plan_load(state: State, spec: ModelSpec, location: LocalCheckpoint | None, force: bool) -> _LoadPlan:
    """Run all checks that do not need the engine, while the previous model still answers."""
    if location is None:
        location = await asyncio.to_thread(state.hub.library.locate_model, spec.id)
    text = await asyncio.to_thread(TextAssets.from_folder, location.folder)
    await state.engine.wait_for_platform()
    estimate = await asyncio.to_thread(estimate_memory, state, spec, location=location)
    if estimate.verdict == "does_not_fit" and not force:
        raise ModelTooLarge(too_large_message(estimate))
    folder = await asyncio.to_thread(external_folder, location, state.hub.library.locate_model)
    return _LoadPlan(location, folder, text, estimate, _load_command(state, spec, location, text, estimate))


def _load_command(
    state: State, spec: ModelSpec, location: LocalCheckpoint, text: TextAssets, estimate: Estimate
) -> LoadModel:
    settings = state.settings
    return LoadModel(
        id=state.engine.new_id("load"),
        path=str(location.folder),
        device=spec.device or settings.device,
        dtype=spec.dtype or settings.dtype,
        cpu_threads=settings.cpu_threads,
        quantization=spec.quantization or settings.quantization,
        cpu_int8=settings.cpu_int8 == "auto",
        runner=settings.runner,
        graphs=settings.graphs == "auto",
        slots=spec.slots or settings.slots,
        context=spec.context,
        special_ids=tuple(sorted(text.tokenizer.special_ids)),
        generates=text.can_generate,
        device_map=spec.device_map or settings.device_map,
        attention=spec.attention or settings.attention,
        trust_remote_code=location.is_trusted,
        unload_first=_must_unload_first(estimate),
    )


def _must_unload_first(estimate: Estimate) -> bool:
    """False where both models fit at once: the previous one then survives a failed load."""
    if not estimate.evictable:
        return False
    return estimate.verdict != "fits" or estimate.free is None or minimum_bytes(estimate) > estimate.free


async def _drain(state: State, reason: str) -> None:
    if state.model is None or state.engine.in_flight == 0:
        state.engine.closed_reason = reason
    else:
        state.set_phase("draining")
        await state.engine.drain(reason, state.settings.drain_timeout)
    state.set_phase("loading")


async def _roll_back(state: State, before: EngineSnapshot, snapshot: StateSnapshot) -> None:
    """Undo a failed change, reloading the previous model if needed. If that fails too, no model is loaded."""
    state.restore(snapshot)
    if state.engine.snapshot.model != before.model:
        try:
            await state.engine.restore_snapshot(before)
        except MillmError as error:
            log.error("lifecycle.not_brought_back", reason=error.message)
            state.drop_model(error, "empty")
            return
        state.engine.set_active_steering(state.active.steering if state.active else None)
    state.set_phase("empty" if state.model is None else "asleep" if state.asleep else "ready")


async def _unload(state: State) -> None:
    if state.model is None:
        return
    engine_before, before = state.engine.snapshot, state.snapshot
    try:
        if state.asleep is None:
            await _drain(state, UNLOADED_MESSAGE)
            await state.engine.unload()
        state.set_model(None)
        await store_desired(state, DesiredState())
    except MillmError:
        await _roll_back(state, engine_before, before)
        raise
    finally:
        state.engine.reopen()
