"""An import against what is here: SAEs that were named once, vectors as features of what is attached, what fits."""

import asyncio
import sqlite3
import struct
from collections.abc import Mapping
from dataclasses import replace

from millm.database import Database
from millm.engine.messages import Decompose, Decomposed
from millm.errors import MillmError
from millm.loaded import AttachedSae
from millm.profiles.formats.detect import parse_document
from millm.profiles.formats.document import (
    DocumentEntry,
    KnownSaes,
    ParsedDocument,
    ResidualVector,
    UnresolvedImportItem,
)
from millm.profiles.resolve import incompatibility, reference_to_attached
from millm.profiles.schema import Profile, ProfileFeature
from millm.state import State

_INSERT_SAE_ID = "INSERT OR REPLACE INTO foreign_saes (id, sae) VALUES (?, ?)"


async def preview_document(state: State, data: bytes, sae_ids: Mapping[str, str]) -> ParsedDocument:
    """What a document would become. `said`: foreign SAE → ours, over what is remembered. Raises InvalidImport."""
    known = KnownSaes({**await asyncio.to_thread(_read_sae_ids, state.hub.database), **sae_ids})
    found = await asyncio.to_thread(parse_document, data, known)
    entries = [await _decompose_vectors(state, entry) for entry in found.entries]
    return replace(found, entries=tuple(_with_incompatibility(state, entry) for entry in entries))


def remember_sae_ids(database: Database, sae_ids: Mapping[str, str]) -> None:
    """Raises NotStored."""

    def change(connection: sqlite3.Connection) -> None:
        connection.executemany(_INSERT_SAE_ID, list(sae_ids.items()))

    if sae_ids:
        database.write(change)


def _read_sae_ids(database: Database) -> dict[str, str]:
    return dict(database.read("SELECT id, sae FROM foreign_saes"))


def _with_incompatibility(state: State, entry: DocumentEntry) -> DocumentEntry:
    if entry.profile is None or entry.unresolved:
        return entry
    return replace(entry, incompatibility=incompatibility(state.model, state.saes, entry.profile))


async def _decompose_vectors(state: State, entry: DocumentEntry) -> DocumentEntry:
    """Its vectors told as features of attached SAEs; those that have none there stay open."""
    for vector in entry.vectors:
        sae = next((one for one in state.saes.values() if one.facts.hook_point == vector.hook_point), None)
        if sae is None:
            reason = f"attach an SAE at {vector.hook_point}, of whose features the vector can be made"
            entry = _mark_unresolved(entry, vector, reason)
        else:
            entry = await _decompose_vector(state, entry, vector, sae)
    return entry


async def _decompose_vector(
    state: State, entry: DocumentEntry, vector: ResidualVector, sae: AttachedSae
) -> DocumentEntry:
    assert entry.profile is not None
    packed = struct.pack(f"<{len(vector.values)}f", *vector.values)
    command = Decompose(id=state.engine.new_id("study"), sae=sae.facts.sae, vector=packed)
    try:
        found = await state.engine.query_features(command)
    except MillmError as error:
        return _mark_unresolved(entry, vector, error.message)
    assert isinstance(found, Decomposed)
    note = f"{vector.path}: {len(found.features)} features of {sae.facts.sae}; {found.residual:.0%} of it is left over"
    profile = _add_features(entry.profile, sae, found.features)
    return replace(entry, profile=profile, notes=(*entry.notes, note))


def _add_features(profile: Profile, sae: AttachedSae, strengths: tuple[tuple[int, float], ...]) -> Profile:
    name = sae.facts.sae
    features = tuple(ProfileFeature(index=index, strength=strength, sae=name) for index, strength in strengths)
    added = {"saes": (*profile.saes, reference_to_attached(sae)), "features": (*profile.features, *features)}
    return profile.model_copy(update=added)


def _mark_unresolved(entry: DocumentEntry, vector: ResidualVector, reason: str) -> DocumentEntry:
    return replace(
        entry, unresolved=(*entry.unresolved, UnresolvedImportItem(vector.path, "vector", vector.hook_point, reason))
    )
