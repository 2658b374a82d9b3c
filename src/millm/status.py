"""What the server is and does at a moment: the answer of `GET /api/status`, for the terminal and the browser."""

import msgspec

from millm.engine.messages import ModelFacts, Platform, SaeFacts
from millm.hub.estimate import Estimate


class Cause(msgspec.Struct, frozen=True, kw_only=True):
    """Why something is as it is."""

    code: str
    message: str


class Changing(msgspec.Struct, frozen=True, kw_only=True):
    """A model that is being loaded or unloaded, an SAE that is being attached or detached."""

    what: str
    """`load`, `unload`, `attach` or `detach`."""
    name: str
    stage: str = ""
    done: int = 0
    total: int = 0


class ModelStatus(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    facts: ModelFacts
    """`facts.memory` is what was measured."""
    estimate: Estimate | None = None
    """What was expected before it was loaded."""
    unloads_in: float | None = None
    """Seconds until it leaves the memory if nobody asks it anything; None: it stays."""


class SteeringStatus(msgspec.Struct, frozen=True, kw_only=True):
    profile: str | None
    """None: a steering without a name."""
    fingerprint: str


class ServerStatus(msgspec.Struct, frozen=True, kw_only=True):
    version: str
    status: str
    """`empty` (no model is loaded), `asleep` (it comes back with the next request), `loading`, `ready`, `draining`
    (answers end before the model goes), `restarting` (the engine died; the model is being loaded again), `safe_mode`
    (it died too often: nothing is loaded by itself) or `down`."""
    cause: Cause | None
    """Why the last change failed, or why nothing is loaded."""
    changing: Changing | None
    model: ModelStatus | None
    saes: tuple[SaeFacts, ...]
    """Those attached."""
    steering: SteeringStatus | None
    """What steers requests that do not say otherwise."""
    degraded: str | None
    """What was given up to go on answering."""
    platform: Platform | None
    """What the engine runs on, once it has started."""
    in_flight: int
    """Answers asked for and not ended; each of `n` counts."""
    running: int
    waiting: int
