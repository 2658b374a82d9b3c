"""What the server is and does at a moment: the answer of `GET /api/status`, for the terminal and the browser.

What should be loaded, attached and active: what people asked for and were told is so. Kept across restarts.

Plain values and their one row in the database; that it is so is the business of `lifecycle`.
"""

import sqlite3
from collections.abc import Callable
from typing import Any

import msgspec

from millm.database import Database
from millm.engine.messages import AttentionImplementation, DeviceMap, Dtype, ModelFacts, Quantization, SaeFacts
from millm.hardware import Platform
from millm.hub.memory_estimate import Estimate


class ModelSpec(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A model to load, and how; None is the server's own setting."""

    id: str
    quantization: Quantization | None = None
    dtype: Dtype | None = None
    device: str | None = None
    device_map: DeviceMap | None = None
    attention: AttentionImplementation | None = None
    slots: int | None = None
    context: int | None = None
    """Tokens that a conversation may have, where that is to be fewer than the model can."""


class SaeSpec(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An SAE to attach, and where, if its own files are not to say so."""

    id: str
    hook_point: str | None = None
    """E.g. `blocks.12.hook_resid_post`."""
    layer: int | None = None
    """Another layer than its own, at the same kind of hook point."""
    allow_model_mismatch: bool = False
    """Attach it although it was trained on another model: base on instruct, say."""
    replaces: str | None = None
    """An attached SAE that it takes the place of, at once."""


class DesiredSae(msgspec.Struct, frozen=True, omit_defaults=True):
    wanted: SaeSpec
    folder: str | None = None
    """Where it is, if that is outside the library."""


class DesiredState(msgspec.Struct, frozen=True, omit_defaults=True):
    """Nothing, by default."""

    model: ModelSpec | None = None
    folder: str | None = None
    """Where the model is, if that is outside the library."""
    saes: tuple[DesiredSae, ...] = ()
    profile: str | None = None
    """The active one, if it has a name."""
    steering: dict[str, Any] | None = None
    """The active steering, as it was asked for; None with a profile: what the profile says."""
    muted: tuple[tuple[str | None, int], ...] = ()
    """Its knobs that do nothing: (SAE, feature)."""
    solo: tuple[tuple[str | None, int], ...] = ()
    """If there are any, only these do something."""
    on: bool = True


def read_desired(database: Database) -> DesiredState:
    """What was acknowledged last."""
    rows = database.read("SELECT body FROM desired")
    return msgspec.json.decode(rows[0][0], type=DesiredState) if rows else DesiredState()


def write_desired(database: Database, desired: DesiredState) -> None:
    """When this returns, it holds."""
    database.write(desired_writer(desired))


def desired_writer(desired: DesiredState) -> Callable[[sqlite3.Connection], object]:
    """For a transaction that writes something else besides."""
    body = msgspec.json.encode(desired).decode()
    return lambda connection: connection.execute("INSERT OR REPLACE INTO desired VALUES (1, ?)", (body,))


class Cause(msgspec.Struct, frozen=True, kw_only=True):
    """Why something is as it is."""

    code: str
    message: str


class ChangeInProgress(msgspec.Struct, frozen=True, kw_only=True):
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
    fingerprint: str | None
    """None: it is switched off, or all of it muted."""
    on: bool = True
    is_modified: bool = False
    """Not what the profile says any more."""


class SteeredFeature(msgspec.Struct, frozen=True, kw_only=True):
    """One knob."""

    sae: str
    index: int
    strength: float
    unit: str
    mode: str
    label: str | None
    color: str | None
    muted: bool
    solo: bool
    is_heard: bool
    """It does something now."""
    raw: float | None
    """The strength in residual units; None where the mode has no unit."""
    norm: float | None
    """As a multiple of the residual norm at the hook."""
    max_act: float | None
    """As a multiple of the feature's maximum activation, where that is known."""


class SteeredHook(msgspec.Struct, frozen=True, kw_only=True):
    """What is added at one hook point, over the features that are heard."""

    sae: str
    hook_point: str
    residual_norm: float
    delta_norm: float | None
    """Length of the vector that mode `add` adds at every token; None: nothing of that mode is heard."""
    delta_share: float | None
    """As a share of the residual norm."""
    varies: bool
    """Other modes add to it, as much as the token asks for."""


class SteeringState(msgspec.Struct, frozen=True, kw_only=True):
    """What steers every request that does not say otherwise."""

    version: int
    """Goes up with every change."""
    profile: str | None
    """The one it came from."""
    is_modified: bool
    """Not what the profile says any more."""
    on: bool
    """The master switch."""
    fingerprint: str | None
    """As receipts tell it; None: the base model answers."""
    steering: dict[str, Any] | None
    """As a request's body has it, with the knobs that do nothing; None: there are none."""
    features: tuple[SteeredFeature, ...] = ()
    hooks: tuple[SteeredHook, ...] = ()
    warnings: tuple[str, ...] = ()
    undo: int = 0
    """Changes that can be taken back."""
    redo: int = 0


class ServerStatus(msgspec.Struct, frozen=True, kw_only=True):
    version: str
    status: str
    """`empty` (no model is loaded), `asleep` (it comes back with the next request), `loading`, `ready`, `draining`
    (answers end before the model goes, or the server), `restarting` (the engine died; the model is being loaded
    again), `safe_mode` (it died too often: nothing is loaded by itself) or `down`."""
    cause: Cause | None
    """Why the last change failed, or why nothing is loaded."""
    changing: ChangeInProgress | None
    model: ModelStatus | None
    saes: tuple[SaeFacts, ...]
    """Those attached."""
    steering: SteeringStatus | None
    """What steers requests that do not say otherwise."""
    degraded: str | None
    """What was given up to go on answering."""
    notice: str | None = None
    """What became of a database that was damaged, since the start."""
    platform: Platform | None
    """What the engine runs on, once it has started."""
    in_flight: int
    """Answers asked for and not ended; each of `n` counts."""
    running: int
    waiting: int
