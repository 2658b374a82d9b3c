"""The desired state, one row of the database that survives restarts, and the structs of `/api/status` and
`/api/steering`.
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
    """A model to load; None is the server's setting."""

    id: str
    quantization: Quantization | None = None
    dtype: Dtype | None = None
    device: str | None = None
    device_map: DeviceMap | None = None
    attention: AttentionImplementation | None = None
    slots: int | None = None
    context: int | None = None
    """Maximum tokens of one sequence; None: the model's maximum."""


class SaeSpec(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An SAE to attach; None is the value in its files."""

    id: str
    hook_point: str | None = None
    """E.g. `blocks.12.hook_resid_post`."""
    layer: int | None = None
    """Another layer, at the same kind of hook point."""
    allow_model_mismatch: bool = False
    """Attach it although it was trained on another model, e.g. base on instruct."""
    replaces: str | None = None
    """An attached SAE to detach in the same step."""


class DesiredSae(msgspec.Struct, frozen=True, omit_defaults=True):
    wanted: SaeSpec
    folder: str | None = None
    """Its location, if outside the library."""


class DesiredState(msgspec.Struct, frozen=True, omit_defaults=True):
    """The model, SAEs and steering that the server restores after a start."""

    model: ModelSpec | None = None
    folder: str | None = None
    """The model's location, if outside the library."""
    saes: tuple[DesiredSae, ...] = ()
    profile: str | None = None
    """Name of the active profile."""
    steering: dict[str, Any] | None = None
    """The active steering; None with a profile: as in the profile."""
    muted: tuple[tuple[str | None, int], ...] = ()
    """(SAE, feature) without effect."""
    solo: tuple[tuple[str | None, int], ...] = ()
    """Where not empty, only these (SAE, feature) have an effect."""
    on: bool = True


def read_desired(database: Database) -> DesiredState:
    rows = database.read("SELECT body FROM desired")
    return msgspec.json.decode(rows[0][0], type=DesiredState) if rows else DesiredState()


def write_desired(database: Database, desired: DesiredState) -> None:
    database.write(desired_writer(desired))


def desired_writer(desired: DesiredState) -> Callable[[sqlite3.Connection], object]:
    """The write as part of a larger transaction."""
    body = msgspec.json.encode(desired).decode()
    return lambda connection: connection.execute("INSERT OR REPLACE INTO desired VALUES (1, ?)", (body,))


class Cause(msgspec.Struct, frozen=True, kw_only=True):
    """An error code and message."""

    code: str
    message: str


class ChangeInProgress(msgspec.Struct, frozen=True, kw_only=True):
    """A running load, unload, attach or detach."""

    what: str
    """`load`, `unload`, `attach` or `detach`."""
    name: str
    stage: str = ""
    done: int = 0
    total: int = 0


class ModelStatus(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    facts: ModelFacts
    """`facts.memory` is measured."""
    estimate: Estimate | None = None
    """The memory estimate of before the load."""
    unloads_in: float | None = None
    """Seconds until the idle unload; None: never."""


class SteeringStatus(msgspec.Struct, frozen=True, kw_only=True):
    profile: str | None
    """None: a steering without a name."""
    fingerprint: str | None
    """None: switched off, or all features muted."""
    on: bool = True
    is_modified: bool = False
    """Differs from the profile."""


class SteeredFeature(msgspec.Struct, frozen=True, kw_only=True):
    """One feature of the active steering."""

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
    """Has an effect now: switched on, not muted, solo where others are."""
    raw: float | None
    """The strength in residual units; None where the mode has no unit."""
    norm: float | None
    """As a multiple of the residual norm at the hook."""
    max_act: float | None
    """As a multiple of the feature's maximum activation, where known."""


class SteeredHook(msgspec.Struct, frozen=True, kw_only=True):
    """The sum of the effective features at one hook point."""

    sae: str
    hook_point: str
    residual_norm: float
    delta_norm: float | None
    """Length of the vector that mode `add` adds at every token; None without such a feature."""
    delta_share: float | None
    """As a share of the residual norm."""
    varies: bool
    """Other modes add further amounts that depend on the token."""


class SteeringState(msgspec.Struct, frozen=True, kw_only=True):
    """The active steering, applied to every request that names none."""

    version: int
    """Increases with every change."""
    profile: str | None
    """The profile it was loaded from."""
    is_modified: bool
    """Differs from the profile."""
    on: bool
    """The master switch."""
    fingerprint: str | None
    """As in receipts; None: the base model answers."""
    steering: dict[str, Any] | None
    """As in a request's body, including muted features; None without any."""
    features: tuple[SteeredFeature, ...] = ()
    hooks: tuple[SteeredHook, ...] = ()
    warnings: tuple[str, ...] = ()
    undo: int = 0
    """Number of changes that can be undone."""
    redo: int = 0


class ServerStatus(msgspec.Struct, frozen=True, kw_only=True):
    version: str
    status: str
    """`empty` (no model is loaded), `asleep` (the next request loads it), `loading`, `ready`, `draining` (answers
    finish before an unload or shutdown), `restarting` (the engine crashed and the model is loaded again),
    `safe_mode` (it crashed too often: nothing is loaded automatically) or `down`."""
    cause: Cause | None
    """Why the last change failed, or why nothing is loaded."""
    changing: ChangeInProgress | None
    model: ModelStatus | None
    saes: tuple[SaeFacts, ...]
    """The attached SAEs."""
    steering: SteeringStatus | None
    """The steering of requests that name none."""
    degraded: str | None
    """What the engine disabled to keep answering."""
    notice: str | None = None
    """The recovery of a damaged database at this start."""
    platform: Platform | None
    """The engine's platform, once it has started."""
    in_flight: int
    """Unfinished answers; each of `n` counts."""
    running: int
    waiting: int
