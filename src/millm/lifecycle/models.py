"""Loading a model, unloading it, and trading one for another."""

import asyncio
from dataclasses import dataclass

import structlog

from millm.desired import Desired, WantedModel
from millm.engine.messages import LoadModel, ModelFacts
from millm.engine.restorable import Restorable
from millm.errors import MillmError, ModelNotLoaded, ModelTooLarge
from millm.hub.estimate import Estimate, least
from millm.hub.locate import Located
from millm.lifecycle.changes import Tell, change
from millm.lifecycle.fitting import estimate_of, sentence
from millm.lifecycle.outside import folder_of
from millm.lifecycle.sleeping import awaken
from millm.lifecycle.steering import remember
from millm.lifecycle.text_side import TextSide
from millm.state import Held, LoadedModel, State
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

    located: Located
    folder: str | None
    """What to remember of where it is."""
    text: TextSide
    estimate: Estimate
    command: LoadModel


async def _load(state: State, wanted: WantedModel, located: Located | None, force: bool, tell: Tell) -> LoadedModel:
    if state.model and state.desired.model == wanted:
        await awaken(state)  # asleep, it has its SAEs with it
        if state.status == "ready":
            return state.model
    plan = await _planned(state, wanted, located, force)
    before, held = state.engine.restorable, state.held
    await _drain(state, REPLACED)
    try:
        facts = await _into_memory(state, plan.command, tell)
        state.holds(_loaded(plan, facts))
        await remember(state, Desired(model=wanted, folder=plan.folder))
    except MillmError:
        await _put_back(state, before, held)
        raise
    finally:
        state.engine.reopen()
    return state.model_or_raise()


async def _into_memory(state: State, command: LoadModel, tell: Tell) -> ModelFacts:
    state.loading = command
    try:
        return await state.engine.load(command, tell)
    finally:
        state.loading = None


def _loaded(plan: _Plan, facts: ModelFacts) -> LoadedModel:
    text = plan.text
    return LoadedModel(
        plan.located.name, facts, text.tokenizer, text.template, text.responses, text.recipe, estimate=plan.estimate
    )


async def _planned(state: State, wanted: WantedModel, located: Located | None, force: bool) -> _Plan:
    """Everything that can be refused while the model of before goes on answering."""
    found = located if located else await asyncio.to_thread(state.hub.library.locate_model, wanted.id)
    text = await asyncio.to_thread(TextSide.of, found.folder)
    await state.engine.known()
    estimate = await asyncio.to_thread(estimate_of, state, wanted, located=found)
    if estimate.verdict == "does_not_fit" and not force:
        raise ModelTooLarge(sentence(estimate))
    folder = await asyncio.to_thread(folder_of, found, state.hub.library.locate_model)
    return _Plan(found, folder, text, estimate, _command(state, wanted, found, text, estimate))


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


async def _put_back(state: State, before: Restorable, held: Held) -> None:
    """The change failed: what the engine had before is still there, or is loaded once more.

    Where that fails too the state is empty, and says why.
    """
    state.holds_again(held)
    if state.engine.restorable.model != before.model:
        try:
            await state.engine.bring_back(before)
        except MillmError as error:
            log.error("lifecycle.not_brought_back", reason=error.message)
            state.lost(error, "empty")
            return
        state.engine.set_active(state.active.steering if state.active else None)
    state.settle("empty" if state.model is None else "asleep" if state.asleep else "ready")


async def _unload(state: State) -> None:
    if state.model is None:
        return
    before, held = state.engine.restorable, state.held
    try:
        if state.asleep is None:
            await _drain(state, UNLOADED)
            await state.engine.unload()
        state.holds(None)
        await remember(state, Desired())
    except MillmError:
        await _put_back(state, before, held)
        raise
    finally:
        state.engine.reopen()
