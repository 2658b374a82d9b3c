"""Loading a model, attaching an SAE and steering, as changes of the state: checked first, then changed at once."""

import asyncio
from dataclasses import dataclass
from pathlib import Path

from millm.engine.client import OnProgress
from millm.engine.messages import AttachSae, LoadModel
from millm.events import SteeringChanged
from millm.hub.home import Home
from millm.hub.labels import read_labels
from millm.hub.locate import Located
from millm.profiles.selection import active
from millm.sae.calibration_text import calibration_text
from millm.state import Active, AttachedSae, LoadedModel, State
from millm.text.head import generates
from millm.text.prompt import ChatTemplate
from millm.text.recipe import Recipe
from millm.text.tokenizer import Tokenizer


@dataclass(frozen=True)
class SaeSource:
    """An SAE to attach: where its files are, and where it belongs if they do not say."""

    located: Located
    hook_point: str | None = None


async def load_model(state: State, located: Located, on_progress: OnProgress) -> LoadedModel:
    """Raises InvalidModel and whatever the engine refuses; the state is unchanged then."""
    writes = generates(located.folder)
    tokenizer, template, recipe = await asyncio.to_thread(_read_text_side, located.folder, writes)
    command = LoadModel(
        id=state.engine.new_id("load"),
        path=str(located.folder),
        device=state.settings.device,
        dtype=state.settings.dtype,
        cpu_threads=state.settings.cpu_threads,
        quantization=state.settings.quantization,
        cpu_int8=state.settings.cpu_int8 == "auto",
        runner=state.settings.runner,
        graphs=state.settings.graphs == "auto",
        slots=state.settings.slots,
        special_ids=tuple(sorted(tokenizer.special_ids)),
        generates=writes,
    )
    facts = await state.engine.load(command, on_progress)
    state.model = LoadedModel(located.name, facts, tokenizer, template, recipe)
    state.saes = {}
    state.active = None
    state.tell_status()
    return state.model


async def attach_sae(state: State, home: Home, source: SaeSource, on_progress: OnProgress) -> AttachedSae:
    """Raises InvalidSae or SaeMismatch; the state is unchanged then."""
    assert state.model is not None
    labels = read_labels(source.located.folder)
    command = AttachSae(
        id=state.engine.new_id("attach"),
        sae=source.located.name,
        path=str(source.located.folder),
        canonical_root=str(home.saes),
        hook_point=source.hook_point,
        calibration_ids=_calibration_ids(state.model.tokenizer),
        model_name=state.model.name,
    )
    facts = await state.engine.attach(command, on_progress)
    attached = AttachedSae(
        facts=facts,
        max_acts={label.index: label.max_act for label in labels if label.max_act},
    )
    state.saes = {**state.saes, facts.sae: attached}
    state.tell_status()
    return attached


def _read_text_side(folder: Path, writes: bool) -> tuple[Tokenizer, ChatTemplate, Recipe]:
    tokenizer = Tokenizer.from_folder(folder, writes=writes)
    return tokenizer, ChatTemplate.from_folder(folder, tokenizer), Recipe.from_folder(folder)


def activate_profile(state: State, name: str) -> None:
    """Steer every request that does not say otherwise. Raises what `selection.active` raises."""
    activate(state, active(state, profile=name))


def activate(state: State, wanted: Active | None) -> None:
    """From now on, and from the next token of the answers that are being made; None is the base model."""
    state.active = wanted
    state.engine.set_active(wanted.steering if wanted else None)
    state.events.publish(
        SteeringChanged(
            profile=wanted.profile if wanted else None, fingerprint=wanted.steering.fingerprint if wanted else None
        )
    )


def _calibration_ids(tokenizer: Tokenizer) -> tuple[tuple[int, ...], ...]:
    return tuple(tuple(tokenizer.encode(text)) for text in calibration_text())
