"""What should be loaded, attached and active: what people asked for and were told is so. Kept across restarts.

Plain values and their one row in the database; that it is so is the business of `lifecycle`.
"""

import sqlite3
from collections.abc import Callable
from typing import Any

import msgspec

from millm.engine.messages import AttentionImplementation, DeviceMap, Dtype, Quantization
from millm.storage import Database


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
