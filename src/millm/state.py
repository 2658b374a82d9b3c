"""The server's mutable state, shared by all requests, and the gate that rejects new requests during shutdown."""

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
"""Routes under `/api` that run the model."""
_READ_METHODS = ("GET", "HEAD", "OPTIONS")


class DrainGate:
    """Counts running model requests; while draining, only reads (`/readyz`, `/api/status`, …) are accepted.

    Not thread-safe: for use on one event loop.
    """

    def __init__(self) -> None:
        self.active_requests = 0
        """Model requests whose response is not complete."""
        self.is_draining = False

    def start_draining(self) -> None:
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
    """The parts of the state that a failed change restores."""

    model: LoadedModel | None
    saes: dict[str, AttachedSae]
    active: ActiveSteeringState | None
    asleep: EngineSnapshot | None


Phase = Literal["loading", "empty", "asleep", "ready", "draining", "safe_mode"]


@dataclass
class State:
    """Created once, before the application; modified by `lifecycle`."""

    settings: Settings
    engine: EngineClient
    profiles: ProfileStore
    hub: Hub
    labels: Labels
    model: LoadedModel | None = None
    saes: dict[str, AttachedSae] = field(default_factory=dict)
    active: ActiveSteeringState | None = None
    edits: SteeringHistory = field(default_factory=SteeringHistory)
    """Undo history of `active`."""
    desired: DesiredState = field(default_factory=DesiredState)
    """The last acknowledged state, as stored."""
    is_starting: bool = False
    """True until the start-up model, SAEs and profile are loaded; requests get 503 meanwhile."""
    is_restoring: bool = False
    """True while the stored state is restored after a start."""
    phase: Phase = "loading"
    asleep: EngineSnapshot | None = None
    """Set while the model is unloaded for idleness; `model` and `saes` still describe it."""
    changing: ChangeInProgress | None = None
    cause: Cause | None = None
    """Why the last change failed, or why nothing is loaded."""
    load_in_progress: LoadModel | None = None
    change_lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held by the one running change."""
    write_lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Orders writes of `desired`: the last one stored is the last one acknowledged."""
    tasks: set[asyncio.Task[Any]] = field(default_factory=set)
    """Running changes, which outlive their request."""
    drain_gate: DrainGate = field(default_factory=DrainGate)
    events: EventBus = field(default_factory=EventBus)
    meter: Meter = field(default_factory=Meter)
    tickets: Tickets = field(default_factory=Tickets)
    model_list_cache: ApplicableProfilesCache = field(default_factory=ApplicableProfilesCache)
    feature_cache: FeatureDescriptionCache = field(default_factory=FeatureDescriptionCache)
    monitor: Monitor = field(init=False)

    def __post_init__(self) -> None:
        self.monitor = Monitor(self.settings, self.events, self.hub.database, self.meter)
        self.engine.on_degraded = self.drop_saes
        self.engine.on_model_lost = lambda error: self.drop_model(error, "safe_mode")
        self.engine.on_status_change = self.publish_status

    @property
    def status(self) -> str:
        """One of the values documented in `ServerStatus.status`."""
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
        """Set the model; detaches all SAEs and deactivates the steering."""
        self.model = model
        self.saes = {}
        self.active = None
        self.asleep = None
        self.set_phase("ready" if model else "empty")

    @property
    def snapshot(self) -> StateSnapshot:
        return StateSnapshot(self.model, self.saes, self.active, self.asleep)

    def restore(self, snapshot: StateSnapshot) -> None:
        self.model, self.saes = snapshot.model, snapshot.saes
        self.active, self.asleep = snapshot.active, snapshot.asleep

    def drop_model(self, error: MillmError, phase: Phase) -> None:
        """Set the model to None because of `error`."""
        self.set_model(None)
        self.cause = Cause(code=error.code, message=error.message)
        self.set_phase(phase)

    def set_phase(self, phase: Phase) -> None:
        self.phase = phase
        self.publish_status()

    def drop_saes(self) -> None:
        """Called when the engine has detached all SAEs for lack of memory."""
        self.saes = {}
        self.publish_status()

    def publish_status(self) -> None:
        """Send the current status to event subscribers."""
        self.events.publish(
            StatusChanged(
                status=self.status,
                model=self.model.name if self.model else None,
                saes=tuple(self.saes),
                degraded=self.engine.degraded_reason,
                cause=self.cause.message if self.cause else None,
            )
        )
