"""Attaches and detaches SAEs while answers are generated, and stores labels of their features.

New label maxima apply to the unit `max_act` of later requests; an active steering is not recomputed.
"""

import asyncio
import re
from collections.abc import Sequence

from msgspec.structs import replace

from millm.engine.messages import AttachSae
from millm.errors import ModelNotLoaded, NotStored, SaeNotFound
from millm.hub.labels import Label, read_labels
from millm.hub.locate import LocalCheckpoint
from millm.lifecycle.changes import ProgressCallback, external_folder, run_change, wake_within_change
from millm.lifecycle.steering import drop_steering_with, rebind_active, set_active, store_desired
from millm.loaded import AttachedSae
from millm.sae.config import calibration_text
from millm.state import State, StateSnapshot
from millm.status import ChangeInProgress, DesiredSae, SaeSpec
from millm.text.tokenizer import Tokenizer


async def store_labels(state: State, sae: str, labels: Sequence[Label], source: str) -> None:
    """Raises InvalidImport or NotStored, without changes."""
    await asyncio.to_thread(state.labels.put, sae, labels, source)
    await _refresh_max_acts(state, sae)


async def remove_label(state: State, sae: str, index: int) -> Label | None:
    """Delete a stored label; returns the remaining one of the SAE's own file. Raises NotStored."""
    remaining = await asyncio.to_thread(state.labels.remove, sae, index)
    await _refresh_max_acts(state, sae)
    return remaining


async def _refresh_max_acts(state: State, sae: str) -> None:
    maxima = await asyncio.to_thread(state.labels.max_acts, sae)
    attached = state.saes.get(sae)
    if attached:
        state.saes = {**state.saes, sae: AttachedSae(attached.facts, maxima)}


_LAYER_NUMBER = re.compile(r"(?<=\.)\d+(?=\.)")


async def attach(
    state: State, spec: SaeSpec, *, location: LocalCheckpoint | None = None, on_progress: ProgressCallback | None = None
) -> AttachedSae:
    """`location`: a folder outside the library.

    Raises ModelNotLoaded, SaeNotFound, InvalidSae or SaeMismatch, without changes.
    """
    change = ChangeInProgress(what="attach", name=spec.id)
    return await run_change(state, change, lambda report: _attach(state, spec, location, report), on_progress)


async def detach(state: State, sae: str) -> None:
    """Running answers still use the SAE; new ones do not. Raises SaeNotFound."""
    await run_change(state, ChangeInProgress(what="detach", name=sae), lambda _: _detach(state, sae))


async def _attach(
    state: State, spec: SaeSpec, location: LocalCheckpoint | None, on_progress: ProgressCallback
) -> AttachedSae:
    if state.model is None:
        raise ModelNotLoaded("no model is loaded; load one before attaching an SAE")
    if spec.replaces is not None:
        _check_attached(state, spec.replaces)
    if location is None:
        location = await asyncio.to_thread(state.hub.library.locate_sae, spec.id)
    folder = await asyncio.to_thread(external_folder, location, state.hub.library.locate_sae)
    labels = await asyncio.to_thread(read_labels, location.folder)
    await wake_within_change(state)
    engine_before, before = state.engine.snapshot, state.snapshot
    facts = await state.engine.attach(await asyncio.to_thread(_attach_command, state, spec, location), on_progress)
    state.labels.set_file_labels(facts.sae, labels)
    attached = AttachedSae(facts, await asyncio.to_thread(state.labels.max_acts, facts.sae))
    _replace_attached(state, spec.replaces, attached)
    desired = DesiredSae(replace(spec, id=facts.sae, replaces=None), folder)
    try:
        await _store_desired_saes(state, (*_desired_without(state, facts.sae), desired))
    except NotStored:
        await _undo_attach(state, facts.sae, engine_before.saes.get(spec.replaces or ""), before)
        raise
    state.labels.retain(state.saes)
    return attached


def _replace_attached(state: State, replaces: str | None, attached: AttachedSae) -> None:
    others = {name: sae for name, sae in state.saes.items() if name != replaces}
    state.saes = {**others, attached.facts.sae: attached}
    if replaces not in (None, attached.facts.sae):
        drop_steering_with(state, {replaces})
    rebind_active(state)


async def _undo_attach(state: State, sae: str, replaced: AttachSae | None, snapshot: StateSnapshot) -> None:
    """Revert an attach that could not be stored, and attach the replaced SAE again."""
    await state.engine.detach(sae)
    if replaced:
        await state.engine.attach(replaced)
    state.saes = snapshot.saes
    set_active(state, snapshot.active)


async def _detach(state: State, sae: str) -> None:
    _check_attached(state, sae)
    await wake_within_change(state)
    before = state.snapshot
    state.saes = {name: attached for name, attached in state.saes.items() if name != sae}
    drop_steering_with(state, {sae})
    try:
        await _store_desired_saes(state, _desired_without(state, sae))
    except NotStored:
        state.saes = before.saes
        set_active(state, before.active)
        raise
    await state.engine.detach(sae)
    state.labels.retain(state.saes)


def _check_attached(state: State, sae: str) -> None:
    if sae not in state.saes:
        raise SaeNotFound(f"no SAE named {sae[:200]!r} is attached; there are: {', '.join(state.saes) or 'none'}")


def _desired_without(state: State, name: str) -> tuple[DesiredSae, ...]:
    """The stored SAEs that are attached now, without `name`; those detached for lack of memory are dropped."""
    return tuple(sae for sae in state.desired.saes if sae.wanted.id in state.saes and sae.wanted.id != name)


async def _store_desired_saes(state: State, saes: tuple[DesiredSae, ...]) -> None:
    await store_desired(state, replace(state.desired, saes=saes))


def _attach_command(state: State, spec: SaeSpec, location: LocalCheckpoint) -> AttachSae:
    model = state.model_or_raise()
    return AttachSae(
        id=state.engine.new_id("attach"),
        sae=location.name,
        path=str(location.folder),
        canonical_root=str(state.hub.home.canonical_saes),
        hook_point=spec.hook_point or _hook_point_on_layer(state, spec),
        calibration_ids=_calibration_ids(model.tokenizer),
        model_name=model.name,
        allow_model_mismatch=spec.allow_model_mismatch,
        replaces=spec.replaces,
    )


def _hook_point_on_layer(state: State, spec: SaeSpec) -> str | None:
    """The SAE's hook point moved to `spec.layer`; `hook_resid_post` where its files name none."""
    if spec.layer is None:
        return None
    own = state.hub.library.sae(spec.id).hook_point or "blocks.0.hook_resid_post"
    return _LAYER_NUMBER.sub(str(spec.layer), own, count=1)


def _calibration_ids(tokenizer: Tokenizer) -> tuple[tuple[int, ...], ...]:
    return tuple(tuple(tokenizer.encode(text)) for text in calibration_text())
