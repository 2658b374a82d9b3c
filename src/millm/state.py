"""The few objects that outlive a request: settings, the engine, the loaded model, the attached SAEs,
what steers, the profiles, the tickets that are out, who listens."""

import time
from dataclasses import dataclass, field

from millm.engine.client import EngineClient
from millm.engine.messages import ModelFacts, SaeFacts
from millm.events import Events, StatusChanged
from millm.profiles.contract import SteeringRequest
from millm.profiles.store import ProfileStore
from millm.sae.steering import Steering
from millm.settings import Settings
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


@dataclass(frozen=True)
class AttachedSae:
    """An SAE that is attached, with what is known about its features."""

    facts: SaeFacts
    max_acts: dict[int, float]
    """Feature → the largest activation its label records: the unit `max_act`."""


@dataclass(frozen=True)
class Active:
    """What steers every request that does not say otherwise."""

    profile: str | None
    """Its name, if it has one."""
    asked: SteeringRequest
    steering: Steering
    """`asked`, resolved when it was made active."""


@dataclass
class State:
    """Built once, before the application; the only mutable thing in the API process."""

    settings: Settings
    engine: EngineClient
    profiles: ProfileStore
    model: LoadedModel | None = None
    saes: dict[str, AttachedSae] = field(default_factory=dict)
    active: Active | None = None
    events: Events = field(default_factory=Events)
    tickets: Tickets = field(default_factory=Tickets)

    def __post_init__(self) -> None:
        self.engine.on_degraded = self.saes_lost

    @property
    def status(self) -> str:
        """`ready` when a model answers."""
        return self.engine.status if self.model else "loading"

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
            )
        )
