"""Loading a model, unloading it, and trading one for another."""

import asyncio
from dataclasses import dataclass

import structlog

from millm.desired import Desired, WantedModel
from millm.engine.messages import LoadModel
from millm.engine.restorable import Restorable
from millm.errors import MillmError, ModelNotLoaded, ModelTooLarge
from millm.hub.estimate import Estimate, least
from millm.hub.locate import Located
from millm.lifecycle.changes import Tell, change
from millm.lifecycle.fitting import estimate_of, sentence
from millm.lifecycle.outside import folder_of
from millm.lifecycle.steering import remember
from millm.lifecycle.text_side import TextSide
from millm.state import LoadedModel, State
from millm.status import Changing

log = structlog.get_logger()

REPLACED = "another model is being loaded; try again in a moment"
UNLOADED = "the model is being unloaded"


async def load(
    state: State,
    wanted: WantedModel,
    *,
    located: Located | None = None,
    force: bool = False,
    on_progress: Tell | None = None,
) -> LoadedModel:
    """`located`: where it is, if that is outside the library; `force`: whatever the estimate says.

    Raises ModelNotFound, InvalidModel, ModelTooLarge and whatever the engine refuses; the model of before answers then,
    put back where it had to make room.
    """
    what = Changing(what="load", name=wanted.id)
    return await change(state, what, lambda tell: _load(state, wanted, located, force, tell), on_progress)


async def unload(state: State) -> None:
    """Running answers may end first, for as long as `MILLM_DRAIN_TIMEOUT` says."""
    name = state.model.name if state.model else ""
    await change(state, Changing(what="unload", name=name), lambda _tell: _unload(state))


def give_up(state: State) -> None:
    """The load that is under way ends as soon as it next reports. Raises ModelNotLoaded if there is none."""
    if state.loading is None:
        raise ModelNotLoaded("nothing is being loaded")
    state.engine.give_up(state.loading)


@dataclass(frozen=True)
class _Plan:
    """A load that has been found possible."""

    wanted: WantedModel
    located: Located
    text: TextSide
    estimate: Estimate
    command: LoadModel


async def _load(state: State, wanted: WantedModel, located: Located | None, force: bool, tell: Tell) -> LoadedModel:
    if state.model and state.status == "ready" and state.desired.model == wanted:
        return state.model
    plan = await _planned(state, wanted, located, force)
    before = state.engine.restorable
    await _drain(state, REPLACED)
    state.loading = plan.command
    try:
        facts = await state.engine.load(plan.command, tell)
    except MillmError:
        await _put_back(state, before)
        raise
    finally:
        state.loading = None
        state.engine.reopen()
    text = plan.text
    state.holds(
        LoadedModel(
            plan.located.name, facts, text.tokenizer, text.template, text.responses, text.recipe, estimate=plan.estimate
        )
    )
    folder = await asyncio.to_thread(folder_of, plan.located, state.hub.library.locate_model)
    await remember(state, Desired(model=wanted, folder=folder))
    return state.model_or_raise()


async def _planned(state: State, wanted: WantedModel, located: Located | None, force: bool) -> _Plan:
    """Everything that can be refused while the model of before goes on answering."""
    found = located if located else await asyncio.to_thread(state.hub.library.locate_model, wanted.id)
    text = await asyncio.to_thread(TextSide.of, found.folder)
    await state.engine.known()
    estimate = await asyncio.to_thread(estimate_of, state, wanted, located=found)
    if estimate.verdict == "does_not_fit" and not force:
        raise ModelTooLarge(sentence(estimate))
    return _Plan(wanted, found, text, estimate, _command(state, wanted, found, text, estimate))


def _command(state: State, wanted: WantedModel, found: Located, text: TextSide, estimate: Estimate) -> LoadModel:
    settings = state.settings
    return LoadModel(
        id=state.engine.new_id("load"),
        path=str(found.folder),
        device=wanted.device or settings.device,
        dtype=wanted.dtype or settings.dtype,
        cpu_threads=settings.cpu_threads,
        quantization=wanted.quantization or settings.quantization,
        cpu_int8=settings.cpu_int8 == "auto",
        runner=settings.runner,
        graphs=settings.graphs == "auto",
        slots=wanted.slots or settings.slots,
        context=wanted.context,
        special_ids=tuple(sorted(text.tokenizer.special_ids)),
        generates=text.generates,
        device_map=wanted.device_map or settings.device_map,
        attention=wanted.attention or settings.attention,
        trust_remote_code=found.is_trusted,
        unload_first=_has_to_make_room(estimate),
    )


def _has_to_make_room(estimate: Estimate) -> bool:
    """Two models side by side for a moment keep the old one, should the new one fail; where there is room."""
    if not estimate.evictable:
        return False
    return estimate.verdict != "fits" or estimate.free is None or least(estimate) > estimate.free


async def _drain(state: State, because: str) -> None:
    if state.model is None or state.engine.in_flight == 0:
        state.engine.closed_because = because
        state.settle("loading")
        return
    state.settle("draining")
    await state.engine.drain(because, state.settings.drain_timeout)
    state.settle("loading")


async def _put_back(state: State, before: Restorable) -> None:
    """The new model failed: that of before is still there, or is loaded once more."""
    if state.model is None:
        state.settle("empty")
    elif state.engine.restorable.model or state.asleep:
        state.settle("asleep" if state.asleep else "ready")
    else:
        await bring_back(state, before)


async def bring_back(state: State, what: Restorable) -> None:
    """What the state says is loaded, in the engine again. Without it the state is empty, and says why."""
    try:
        await state.engine.bring_back(what)
    except MillmError as error:
        log.error("lifecycle.not_brought_back", reason=error.message)
        state.lost(error, "empty")
        return
    state.engine.set_active(state.active.steering if state.active else None)
    state.asleep = None
    state.settle("ready")


async def _unload(state: State) -> None:
    if state.model is None:
        return
    if state.asleep is None:
        await _drain(state, UNLOADED)
        try:
            await state.engine.unload()
        finally:
            state.engine.reopen()
    state.holds(None)
    await remember(state, Desired())
