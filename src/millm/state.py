"""The few objects that outlive a request: settings, the engine, the loaded model, the attached SAEs,
what steers, the profiles, what is on disk, what features mean, the tickets that are out, who is inside, who listens,
what is counted.

The server's doors: who is inside for an answer, and, once they close, who is let in all the same.
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

from millm.auth import Tickets
from millm.engine.client import EngineClient
from millm.engine.feature_cache import FeatureDescriptionCache
from millm.engine.messages import LoadModel
from millm.engine.supervisor import EngineSnapshot
from millm.errors import MillmError, ModelNotLoaded, ShuttingDown
from millm.events import EventBus, StatusChanged
from millm.hub.labels import Labels
from millm.hub.library import Hub
from millm.loaded import AttachedSae, LoadedModel
from millm.monitoring.metrics import Meter
from millm.monitoring.recorder import Monitor
from millm.profiles.active import ActiveSteeringState, ApplicableProfilesCache, SteeringHistory
from millm.profiles.store import ProfileStore
from millm.settings import Settings
from millm.status import Cause, ChangeInProgress, DesiredState

EXPERIMENT_PATHS = frozenset(("/api/compare", "/api/sweep", "/api/calibrate"))
"""Under `/api`, what asks the model."""
_READ_METHODS = ("GET", "HEAD", "OPTIONS")


class DrainGate:
    """Lives on one event loop."""

    def __init__(self) -> None:
        self.active_requests = 0
        """Requests that asked the model, and have not got their whole answer yet."""
        self.is_draining = False

    def start_draining(self) -> None:
        """For good: the server is about to stop. Who looks (`/readyz`, `/api/status`, …) is still let in."""
        self.is_draining = True

    def check(self, kind: str, method: str) -> None:
        """`kind`: `http` or `websocket`. Raises ShuttingDown."""
        if self.is_draining and (kind == "websocket" or method not in _READ_METHODS):
            raise ShuttingDown("the server is being stopped; try again when it is back")

    @contextmanager
    def track_request(self, method: str, path: str) -> Iterator[None]:
        if not is_model_request(method, path):
            yield
            return
        self.active_requests += 1
        try:
            yield
        finally:
            self.active_requests -= 1


def is_model_request(method: str, path: str) -> bool:
    return method == "POST" and (path.startswith("/v1/") or path in EXPERIMENT_PATHS)


@dataclass(frozen=True)
class StateSnapshot:
    """What the state says is loaded, attached and active, at one moment."""

    model: LoadedModel | None
    saes: dict[str, AttachedSae]
    active: ActiveSteeringState | None
    asleep: EngineSnapshot | None


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
    active: ActiveSteeringState | None = None
    edits: SteeringHistory = field(default_factory=SteeringHistory)
    """What was active before."""
    desired: DesiredState = field(default_factory=DesiredState)
    """What was acknowledged last."""
    is_starting: bool = False
    """Not all that the server was started with is there yet: nobody is answered with less."""
    is_restoring: bool = False
    """After a start: what was acknowledged before it is not there yet."""
    phase: Phase = "loading"
    asleep: EngineSnapshot | None = None
    """What comes back with the next request; `model` and `saes` tell of it meanwhile."""
    changing: ChangeInProgress | None = None
    cause: Cause | None = None
    """Why the last change failed, or why nothing is loaded."""
    load_in_progress: LoadModel | None = None
    """What the engine is loading."""
    change_lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    """One change at a time."""
    write_lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    """What is remembered last is what was acknowledged last."""
    tasks: set[asyncio.Task[Any]] = field(default_factory=set)
    """Changes that go on although whoever asked may have gone."""
    drain_gate: DrainGate = field(default_factory=DrainGate)
    events: EventBus = field(default_factory=EventBus)
    meter: Meter = field(default_factory=Meter)
    tickets: Tickets = field(default_factory=Tickets)
    model_list_cache: ApplicableProfilesCache = field(default_factory=ApplicableProfilesCache)
    """Which profiles can be applied."""
    feature_cache: FeatureDescriptionCache = field(default_factory=FeatureDescriptionCache)
    monitor: Monitor = field(init=False)

    def __post_init__(self) -> None:
        self.monitor = Monitor(self.settings, self.events, self.hub.database, self.meter)
        self.engine.on_degraded = self.drop_saes
        self.engine.on_model_lost = lambda error: self.drop_model(error, "safe_mode")
        self.engine.on_status_change = self.publish_status

    @property
    def status(self) -> str:
        """`ready` when a model answers; the others are told in `status.ServerStatus`."""
        if self.drain_gate.is_draining:
            return "draining"
        if self.engine.status in ("restarting", "down"):
            return self.engine.status
        return "loading" if self.is_starting else self.phase

    def model_or_raise(self) -> LoadedModel:
        """Raises ModelNotLoaded."""
        if self.model is None:
            raise ModelNotLoaded("no model is loaded; load one, or try again in a moment")
        return self.model

    def set_model(self, model: LoadedModel | None) -> None:
        """Another model, or none: with no SAE, and nothing active."""
        self.model = model
        self.saes = {}
        self.active = None
        self.asleep = None
        self.set_phase("ready" if model else "empty")

    @property
    def snapshot(self) -> "StateSnapshot":
        return StateSnapshot(self.model, self.saes, self.active, self.asleep)

    def restore(self, snapshot: "StateSnapshot") -> None:
        """As if nothing had happened since."""
        self.model, self.saes, self.active, self.asleep = (
            snapshot.model,
            snapshot.saes,
            snapshot.active,
            snapshot.asleep,
        )

    def drop_model(self, error: MillmError, phase: Phase) -> None:
        """What was loaded is gone, and does not come back by itself."""
        self.set_model(None)
        self.cause = Cause(code=error.code, message=error.message)
        self.set_phase(phase)

    def set_phase(self, phase: Phase) -> None:
        self.phase = phase
        self.publish_status()

    def drop_saes(self) -> None:
        """The engine has turned them off: nothing is attached any more."""
        self.saes = {}
        self.publish_status()

    def publish_status(self) -> None:
        """To those who listen: what it is from now on."""
        self.events.publish(
            StatusChanged(
                status=self.status,
                model=self.model.name if self.model else None,
                saes=tuple(self.saes),
                degraded=self.engine.degraded_reason,
                cause=self.cause.message if self.cause else None,
            )
        )
