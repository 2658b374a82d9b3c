"""Attaching an SAE and detaching it, while answers go on."""

import asyncio
import re

from msgspec.structs import replace

from millm.desired import DesiredSae, WantedSae
from millm.engine.messages import AttachSae
from millm.errors import ModelNotLoaded, NotStored, SaeNotFound
from millm.hub.labels import read_labels
from millm.hub.locate import Located
from millm.lifecycle.changes import Tell, change
from millm.lifecycle.outside import folder_of
from millm.lifecycle.sleeping import awaken
from millm.lifecycle.steering import remember, steer, steer_anew, unsteer
from millm.sae.calibration_text import calibration_text
from millm.state import AttachedSae, Held, State
from millm.status import Changing
from millm.text.tokenizer import Tokenizer

_LAYER = re.compile(r"(?<=\.)\d+(?=\.)")


async def attach(
    state: State, wanted: WantedSae, *, located: Located | None = None, on_progress: Tell | None = None
) -> AttachedSae:
    """`located`: where it is, if that is outside the library.

    Raises ModelNotLoaded, SaeNotFound, InvalidSae, SaeMismatch; nothing has changed then.
    """
    what = Changing(what="attach", name=wanted.id)
    return await change(state, what, lambda tell: _attach(state, wanted, located, tell), on_progress)


async def detach(state: State, sae: str) -> None:
    """Answers that were begun with it end with it; nothing new uses it. Raises SaeNotFound."""
    await change(state, Changing(what="detach", name=sae), lambda _tell: _detach(state, sae))


async def _attach(state: State, wanted: WantedSae, located: Located | None, tell: Tell) -> AttachedSae:
    if state.model is None:
        raise ModelNotLoaded("no model is loaded; load one before attaching an SAE")
    if wanted.replaces is not None:
        _check_attached(state, wanted.replaces)
    found = located if located else await asyncio.to_thread(state.hub.library.locate_sae, wanted.id)
    folder = await asyncio.to_thread(folder_of, found, state.hub.library.locate_sae)
    labels = await asyncio.to_thread(read_labels, found.folder)
    await awaken(state)
    before, held = state.engine.restorable, state.held
    facts = await state.engine.attach(await asyncio.to_thread(_command, state, wanted, found), tell)
    state.labels.lay(facts.sae, labels)
    attached = AttachedSae(facts, await asyncio.to_thread(state.labels.max_acts, facts.sae))
    _swap(state, wanted.replaces, attached)
    kept = DesiredSae(replace(wanted, id=facts.sae, replaces=None), folder)
    try:
        await _remember(state, (*_without(state, facts.sae), kept))
    except NotStored:
        await _take_back(state, facts.sae, before.saes.get(wanted.replaces or ""), held)
        raise
    state.labels.retain(state.saes)
    return attached


def _swap(state: State, replaces: str | None, attached: AttachedSae) -> None:
    kept = {name: sae for name, sae in state.saes.items() if name != replaces}
    state.saes = {**kept, attached.facts.sae: attached}
    if replaces not in (None, attached.facts.sae):
        unsteer(state, {replaces})
    steer_anew(state)


async def _take_back(state: State, sae: str, replaced: AttachSae | None, held: Held) -> None:
    """It could not be remembered: what it took the place of is there again, under the id that it had."""
    await state.engine.detach(sae)
    if replaced:
        await state.engine.attach(replaced)
    state.saes = held.saes
    steer(state, held.active)


async def _detach(state: State, sae: str) -> None:
    _check_attached(state, sae)
    await awaken(state)
    held = state.held
    state.saes = {name: attached for name, attached in state.saes.items() if name != sae}
    unsteer(state, {sae})
    try:
        await _remember(state, _without(state, sae))
    except NotStored:
        state.saes = held.saes
        steer(state, held.active)
        raise
    await state.engine.detach(sae)
    state.labels.retain(state.saes)


def _check_attached(state: State, sae: str) -> None:
    if sae not in state.saes:
        raise SaeNotFound(f"no SAE named {sae[:200]!r} is attached; there are: {', '.join(state.saes) or 'none'}")


def _without(state: State, name: str) -> tuple[DesiredSae, ...]:
    """Of those that are attached: what was turned off for want of memory may be in the way of what came since."""
    return tuple(sae for sae in state.desired.saes if sae.wanted.id in state.saes and sae.wanted.id != name)


async def _remember(state: State, saes: tuple[DesiredSae, ...]) -> None:
    await remember(state, replace(state.desired, saes=saes))


def _command(state: State, wanted: WantedSae, found: Located) -> AttachSae:
    model = state.model_or_raise()
    return AttachSae(
        id=state.engine.new_id("attach"),
        sae=found.name,
        path=str(found.folder),
        canonical_root=str(state.hub.home.saes),
        hook_point=wanted.hook_point or _on_layer(state, wanted),
        calibration_ids=_calibration_ids(model.tokenizer),
        model_name=model.name,
        allow_model_mismatch=wanted.allow_model_mismatch,
        replaces=wanted.replaces,
    )


def _on_layer(state: State, wanted: WantedSae) -> str | None:
    """The SAE's own hook point on another layer; the residual stream after it, where its files name none."""
    if wanted.layer is None:
        return None
    own = state.hub.library.sae(wanted.id).hook_point or "blocks.0.hook_resid_post"
    return _LAYER.sub(str(wanted.layer), own, count=1)


def _calibration_ids(tokenizer: Tokenizer) -> tuple[tuple[int, ...], ...]:
    return tuple(tuple(tokenizer.encode(text)) for text in calibration_text())
