"""The few objects that outlive a request: settings, the engine, the loaded model, the attached SAEs,
what steers, the profiles, what is on disk, what features mean, the tickets that are out, who is inside, who listens,
what is counted."""

import asyncio
import time
from dataclasses import dataclass, field
from typing import Any, Literal

from millm.desired import Desired
from millm.doors import Doors
from millm.engine.client import EngineClient
from millm.engine.messages import LoadModel, ModelFacts, SaeFacts
from millm.engine.restorable import Restorable
from millm.errors import MillmError, ModelNotLoaded
from millm.events import Events, StatusChanged
from millm.features.described import Described
from millm.hub.estimate import Estimate
from millm.hub.hub import Hub
from millm.hub.labels import Labels
from millm.metrics.meter import Meter
from millm.monitor.monitor import Monitor
from millm.profiles.active import Active, Edits
from millm.profiles.menu import Menu
from millm.profiles.store import ProfileStore
from millm.settings import Settings
from millm.status import Cause, Changing
from millm.text.prompt import ChatTemplate
from millm.text.recipe import Recipe
from millm.text.response_template import ResponseTemplate
from millm.text.tokenizer import Tokenizer
from millm.tickets import Tickets


@dataclass(frozen=True)
class LoadedModel:
    """The model that answers, as the API process knows it."""

    name: str
    """What clients ask for, e.g. `smollm2-135m-instruct` or `google/gemma-2-2b`."""
    facts: ModelFacts
    tokenizer: Tokenizer
    template: ChatTemplate
    responses: ResponseTemplate | None = None
    """How it writes its reasoning and its calls, if it says so."""
    recipe: Recipe = field(default_factory=Recipe)
    """How it wants texts to become vectors."""
    created: int = field(default_factory=lambda: int(time.time()))
    estimate: Estimate | None = None
    """What it was expected to take, before it was loaded."""


@dataclass(frozen=True)
class AttachedSae:
    """An SAE that is attached, with what is known about its features."""

    facts: SaeFacts
    max_acts: dict[int, float]
    """Feature → the largest activation its label records: the unit `max_act`."""


@dataclass(frozen=True)
class Held:
    """What the state says is loaded, attached and active, at one moment."""

    model: LoadedModel | None
    saes: dict[str, AttachedSae]
    active: Active | None
    asleep: Restorable | None


Phase = Literal["loading", "empty", "asleep", "ready", "draining", "safe_mode"]


@dataclass
class State:
    """Built once, before the application; the only mutable thing in the API process. `lifecycle` changes it."""

    settings: Settings
    engine: EngineClient
    profiles: ProfileStore
    hub: Hub
    labels: Labels
    model: LoadedModel | None = None
    saes: dict[str, AttachedSae] = field(default_factory=dict)
    active: Active | None = None
    edits: Edits = field(default_factory=Edits)
    """What was active before."""
    desired: Desired = field(default_factory=Desired)
    """What was acknowledged last."""
    is_starting: bool = False
    """Not all that the server was started with is there yet: nobody is answered with less."""
    is_restoring: bool = False
    """After a start: what was acknowledged before it is not there yet."""
    phase: Phase = "loading"
    asleep: Restorable | None = None
    """What comes back with the next request; `model` and `saes` tell of it meanwhile."""
    changing: Changing | None = None
    cause: Cause | None = None
    """Why the last change failed, or why nothing is loaded."""
    loading: LoadModel | None = None
    """What the engine is loading."""
    changes: asyncio.Lock = field(default_factory=asyncio.Lock)
    """One change at a time."""
    writing: asyncio.Lock = field(default_factory=asyncio.Lock)
    """What is remembered last is what was acknowledged last."""
    tasks: set[asyncio.Task[Any]] = field(default_factory=set)
    """Changes that go on although whoever asked may have gone."""
    doors: Doors = field(default_factory=Doors)
    events: Events = field(default_factory=Events)
    meter: Meter = field(default_factory=Meter)
    tickets: Tickets = field(default_factory=Tickets)
    menu: Menu = field(default_factory=Menu)
    """Which profiles can be applied."""
    described: Described = field(default_factory=Described)
    monitor: Monitor = field(init=False)

    def __post_init__(self) -> None:
        self.monitor = Monitor(self.settings, self.events, self.hub.database, self.meter)
        self.engine.on_degraded = self.saes_lost
        self.engine.on_emptied = lambda error: self.lost(error, "safe_mode")
        self.engine.on_status = self.tell_status

    @property
    def status(self) -> str:
        """`ready` when a model answers; the others are told in `status.ServerStatus`."""
        if self.doors.are_closing:
            return "draining"
        if self.engine.status in ("restarting", "down"):
            return self.engine.status
        return "loading" if self.is_starting else self.phase

    def model_or_raise(self) -> LoadedModel:
        """Raises ModelNotLoaded."""
        if self.model is None:
            raise ModelNotLoaded("no model is loaded; load one, or try again in a moment")
        return self.model

    def holds(self, model: LoadedModel | None) -> None:
        """Another model, or none: with no SAE, and nothing active."""
        self.model = model
        self.saes = {}
        self.active = None
        self.asleep = None
        self.settle("ready" if model else "empty")

    @property
    def held(self) -> "Held":
        return Held(self.model, self.saes, self.active, self.asleep)

    def holds_again(self, held: "Held") -> None:
        """As if nothing had happened since."""
        self.model, self.saes, self.active, self.asleep = held.model, held.saes, held.active, held.asleep

    def lost(self, error: MillmError, phase: Phase) -> None:
        """What was loaded is gone, and does not come back by itself."""
        self.holds(None)
        self.cause = Cause(code=error.code, message=error.message)
        self.settle(phase)

    def settle(self, phase: Phase) -> None:
        self.phase = phase
        self.tell_status()

    def saes_lost(self) -> None:
        """The engine has turned them off: nothing is attached any more."""
        self.saes = {}
        self.tell_status()

    def tell_status(self) -> None:
        """To those who listen: what it is from now on."""
        self.events.publish(
            StatusChanged(
                status=self.status,
                model=self.model.name if self.model else None,
                saes=tuple(self.saes),
                degraded=self.engine.degraded,
                cause=self.cause.message if self.cause else None,
            )
        )
