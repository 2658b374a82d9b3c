"""An import against what is here: SAEs that were named once, vectors as features of what is attached, what fits."""

import asyncio
import sqlite3
import struct
from collections.abc import Mapping
from dataclasses import replace

from millm.engine.messages import Decompose, Decomposed
from millm.errors import MillmError
from millm.profiles.binding import misfit, reference_of
from millm.profiles.contract import Profile, ProfileFeature
from millm.profiles.importers.reading import preview
from millm.profiles.importers.values import Entry, Known, Preview, Unresolved, Vector
from millm.state import AttachedSae, State
from millm.storage import Database

_REMEMBER = "INSERT OR REPLACE INTO foreign_saes (id, sae) VALUES (?, ?)"


async def previewed(state: State, data: bytes, said: Mapping[str, str]) -> Preview:
    """What a document would become. `said`: foreign SAE → ours, over what is remembered. Raises InvalidImport."""
    known = Known({**await asyncio.to_thread(_remembered, state.hub.database), **said})
    found = await asyncio.to_thread(preview, data, known)
    entries = [await _with_features(state, entry) for entry in found.entries]
    return replace(found, entries=tuple(_with_misfit(state, entry) for entry in entries))


def remember(database: Database, said: Mapping[str, str]) -> None:
    """Raises NotStored."""

    def change(connection: sqlite3.Connection) -> None:
        connection.executemany(_REMEMBER, list(said.items()))

    if said:
        database.write(change)


def _remembered(database: Database) -> dict[str, str]:
    return dict(database.read("SELECT id, sae FROM foreign_saes"))


def _with_misfit(state: State, entry: Entry) -> Entry:
    if entry.profile is None or entry.unresolved:
        return entry
    return replace(entry, misfit=misfit(state.model, state.saes, entry.profile))


async def _with_features(state: State, entry: Entry) -> Entry:
    """Its vectors told as features of attached SAEs; those that have none there stay open."""
    for vector in entry.vectors:
        sae = next((one for one in state.saes.values() if one.facts.hook_point == vector.hook_point), None)
        if sae is None:
            reason = f"attach an SAE at {vector.hook_point}, of whose features the vector can be made"
            entry = _open(entry, vector, reason)
        else:
            entry = await _decomposed(state, entry, vector, sae)
    return entry


async def _decomposed(state: State, entry: Entry, vector: Vector, sae: AttachedSae) -> Entry:
    assert entry.profile is not None
    packed = struct.pack(f"<{len(vector.values)}f", *vector.values)
    command = Decompose(id=state.engine.new_id("study"), sae=sae.facts.sae, vector=packed)
    try:
        found = await state.engine.study(command)
    except MillmError as error:
        return _open(entry, vector, error.message)
    assert isinstance(found, Decomposed)
    note = f"{vector.path}: {len(found.features)} features of {sae.facts.sae}; {found.residual:.0%} of it is left over"
    profile = _with(entry.profile, sae, found.features)
    return replace(entry, profile=profile, notes=(*entry.notes, note))


def _with(profile: Profile, sae: AttachedSae, strengths: tuple[tuple[int, float], ...]) -> Profile:
    name = sae.facts.sae
    features = tuple(ProfileFeature(index=index, strength=strength, sae=name) for index, strength in strengths)
    added = {"saes": (*profile.saes, reference_of(sae)), "features": (*profile.features, *features)}
    return profile.model_copy(update=added)


def _open(entry: Entry, vector: Vector, reason: str) -> Entry:
    return replace(entry, unresolved=(*entry.unresolved, Unresolved(vector.path, "vector", vector.hook_point, reason)))
