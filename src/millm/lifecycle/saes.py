"""Attaching an SAE and detaching it, while answers go on."""

import asyncio
import re

from msgspec.structs import replace

from millm.desired import DesiredSae, WantedSae
from millm.engine.messages import AttachSae
from millm.errors import ModelNotLoaded, SaeNotFound
from millm.hub.labels import read_labels
from millm.hub.locate import Located
from millm.lifecycle.changes import Tell, change
from millm.lifecycle.models import bring_back
from millm.lifecycle.outside import folder_of
from millm.lifecycle.steering import remember, steer_anew, unsteer
from millm.sae.calibration_text import calibration_text
from millm.state import AttachedSae, State
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
    await _awake(state)
    if state.model is None:
        raise ModelNotLoaded("no model is loaded; load one before attaching an SAE")
    if wanted.replaces is not None:
        _check_attached(state, wanted.replaces)
    found = located if located else await asyncio.to_thread(state.hub.library.locate_sae, wanted.id)
    labels = await asyncio.to_thread(read_labels, found.folder)
    facts = await state.engine.attach(await asyncio.to_thread(_command, state, wanted, found), tell)
    attached = AttachedSae(facts, {label.index: label.max_act for label in labels if label.max_act})
    kept = {name: sae for name, sae in state.saes.items() if name != wanted.replaces}
    state.saes = {**kept, facts.sae: attached}
    if wanted.replaces not in (None, facts.sae):
        unsteer(state, {wanted.replaces})
    steer_anew(state)
    folder = await asyncio.to_thread(folder_of, found, state.hub.library.locate_sae)
    await _remember(state, (*_without(state, wanted.replaces, facts.sae), DesiredSae(wanted, folder)))
    return attached


async def _detach(state: State, sae: str) -> None:
    await _awake(state)
    _check_attached(state, sae)
    unsteer(state, {sae})
    await state.engine.detach(sae)
    state.saes = {name: attached for name, attached in state.saes.items() if name != sae}
    await _remember(state, _without(state, sae))


async def _awake(state: State) -> None:
    if state.asleep:
        await bring_back(state, state.asleep)


def _check_attached(state: State, sae: str) -> None:
    if sae not in state.saes:
        raise SaeNotFound(f"no SAE named {sae[:200]!r} is attached; there are: {', '.join(state.saes) or 'none'}")


def _without(state: State, *names: str | None) -> tuple[DesiredSae, ...]:
    return tuple(sae for sae in state.desired.saes if sae.wanted.id not in names)


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
