"""Profiles in and out of the server: exports in every format, import previews, and profiles of the active steering."""

import asyncio
import json
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from pydantic import ValidationError

from millm.database import Database
from millm.engine.messages import ComputeDirections, Decompose, Decomposed, DirectionsComputed
from millm.errors import Conflict, InvalidProfile, InvalidSteering, MillmError, SaeDetached
from millm.lifecycle.steering import NOTHING_ACTIVE_MESSAGE
from millm.loaded import AttachedSae, LoadedModel
from millm.profiles.active import ActiveSteeringState
from millm.profiles.formats import adr, gguf, lm_eval, mistudio, neuronpedia
from millm.profiles.formats.detect import parse_document
from millm.profiles.formats.document import (
    DocumentEntry,
    KnownSaes,
    ParsedDocument,
    ResidualVector,
    UnresolvedReference,
)
from millm.profiles.formats.export_result import SaeMeasurements, export_error
from millm.profiles.resolve import bind_profile, check_model, incompatibility, reference_to_attached, resolve_steering
from millm.profiles.schema import ModelReference, Profile, ProfileFeature, Provenance, SaeReference, WatchedFeature
from millm.state import State

ExportFormat = Literal["millm", "adr", "mistudio", "neuronpedia", "lm-eval", "gguf"]
_DOCUMENT_EXPORTERS = {
    "adr": adr.export_document,
    "mistudio": mistudio.export_document,
    "neuronpedia": neuronpedia.export_document,
}
_JSON = "application/json"
_INSERT_SAE_ID = "INSERT OR REPLACE INTO foreign_saes (id, sae) VALUES (?, ?)"


@dataclass(frozen=True)
class ExportedFile:
    name: str
    media_type: str
    body: bytes


async def render_export(state: State, profile: Profile, format: ExportFormat) -> ExportedFile:
    """Raises InvalidProfile with the property that the format cannot express."""
    measurements = sae_measurements(state.saes, profile)
    if format == "gguf":
        return ExportedFile(
            f"{profile.name}.gguf", "application/octet-stream", await _control_vector_file(state, profile)
        )
    if format == "lm-eval":
        return ExportedFile(f"{profile.name}.csv", "text/csv", lm_eval.export_csv(profile, measurements).encode())
    if format == "millm":
        return ExportedFile(f"{profile.name}.json", _JSON, millm_document(profile))
    document = _DOCUMENT_EXPORTERS[format](profile, measurements)
    return ExportedFile(f"{profile.name}.{format}.json", _JSON, _encode_json(document))


def millm_document(profile: Profile) -> bytes:
    return _encode_json({"version": profile.version, **profile.model_dump(mode="json", exclude_defaults=True)})


def sae_measurements(saes: dict[str, AttachedSae], profile: Profile) -> SaeMeasurements:
    """Measurements of the attached SAEs that the profile refers to; empty where one does not match."""
    try:
        bound = bind_profile(saes, profile)
    except InvalidSteering:
        return SaeMeasurements()
    only = next(iter(saes)) if len(saes) == 1 else None
    first = profile.saes[0].alias if len(profile.saes) == 1 else None
    names = {one.sae or first: now.sae or only for one, now in zip(profile.features, bound.features, strict=True)}
    attached = {name: saes[sae] for name, sae in names.items() if sae in saes}
    return SaeMeasurements(
        {name: sae.facts.residual_norm for name, sae in attached.items()},
        {name: sae.max_acts for name, sae in attached.items()},
    )


async def _control_vector_file(state: State, profile: Profile) -> bytes:
    model = state.model_or_raise()
    gguf.check_exportable(profile)
    check_model(profile, model)
    steering = resolve_steering(state.saes, bind_profile(state.saes, profile))
    if steering is None:
        raise export_error(profile, "it steers nothing")
    computed = await state.engine.query_features(ComputeDirections(id=state.engine.new_id("study"), steering=steering))
    assert isinstance(computed, DirectionsComputed)
    return gguf.export_gguf(profile, computed.directions, model.facts.architecture)


def _encode_json(document: object) -> bytes:
    return json.dumps(document, ensure_ascii=False, indent=2).encode() + b"\n"


async def preview_document(state: State, data: bytes, sae_ids: Mapping[str, str]) -> ParsedDocument:
    """Parse a document. `sae_ids`: foreign id → library id, in addition to the stored ones. Raises InvalidImport."""
    known = KnownSaes({**await asyncio.to_thread(_read_sae_ids, state.hub.database), **sae_ids})
    document = await asyncio.to_thread(parse_document, data, known)
    entries = [await _decompose_vectors(state, entry) for entry in document.entries]
    return replace(document, entries=tuple(_with_incompatibility(state, entry) for entry in entries))


def remember_sae_ids(database: Database, sae_ids: Mapping[str, str]) -> None:
    """Raises NotStored."""
    if sae_ids:
        database.write(lambda connection: connection.executemany(_INSERT_SAE_ID, list(sae_ids.items())))


def _read_sae_ids(database: Database) -> dict[str, str]:
    return dict(database.read("SELECT id, sae FROM foreign_saes"))


def _with_incompatibility(state: State, entry: DocumentEntry) -> DocumentEntry:
    if entry.profile is None or entry.unresolved:
        return entry
    return replace(entry, incompatibility=incompatibility(state.model, state.saes, entry.profile))


async def _decompose_vectors(state: State, entry: DocumentEntry) -> DocumentEntry:
    """Decompose the entry's vectors into features of attached SAEs; a vector without an SAE stays unresolved."""
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
        decomposed = await state.engine.query_features(command)
    except MillmError as error:
        return _mark_unresolved(entry, vector, error.message)
    assert isinstance(decomposed, Decomposed)
    count, rest = len(decomposed.features), decomposed.residual
    note = f"{vector.path}: {count} features of {sae.facts.sae}; {rest:.0%} of it is left over"
    profile = _add_features(entry.profile, sae, decomposed.features)
    return replace(entry, profile=profile, notes=(*entry.notes, note))


def _add_features(profile: Profile, sae: AttachedSae, strengths: tuple[tuple[int, float], ...]) -> Profile:
    name = sae.facts.sae
    features = tuple(ProfileFeature(index=index, strength=strength, sae=name) for index, strength in strengths)
    added = {"saes": (*profile.saes, reference_to_attached(sae)), "features": (*profile.features, *features)}
    return profile.model_copy(update=added)


def _mark_unresolved(entry: DocumentEntry, vector: ResidualVector, reason: str) -> DocumentEntry:
    reference = UnresolvedReference(vector.path, "vector", vector.hook_point, reason)
    return replace(entry, unresolved=(*entry.unresolved, reference))


def profile_from_active(
    state: State,
    name: str,
    *,
    description: str = "",
    watch: tuple[WatchedFeature, ...] = (),
    example_prompts: tuple[str, ...] = (),
    tags: tuple[str, ...] = (),
) -> Profile:
    """The features in effect as a profile; the master switch is ignored.

    Raises Conflict without an active steering, SaeDetached, or InvalidProfile for a watched feature of an unknown SAE.
    """
    current, model = state.active, state.model_or_raise()
    if current is None:
        raise Conflict(NOTHING_ACTIVE_MESSAGE)
    _check_watch(state, watch)
    request = replace(current, on=True).effective_request
    used = {feature.sae for feature in current.request.features} | {feature.sae for feature in watch}
    fields = dict(
        **request.model_dump(include={"positions", "skip", "skip_constrained", "reference_norm"}),
        name=name,
        description=description,
        model=_model_reference(model),
        saes=tuple(_sae_references(state, used - {None}, current)),
        features=request.features,
        watch=watch,
        example_prompts=example_prompts,
        tags=tags,
        provenance=Provenance(source="millm"),
    )
    try:
        return Profile.model_validate(fields)
    except ValidationError as error:
        raise InvalidProfile(error.errors(include_input=False, include_url=False)[0]["msg"]) from error


def _check_watch(state: State, watch: Iterable[WatchedFeature]) -> None:
    for feature in watch:
        if feature.sae not in (None, *state.saes):
            known = ", ".join(state.saes) or "none"
            raise InvalidProfile(f"`watch`: no SAE named {feature.sae!r} is attached; attached: {known}", param="watch")


def _model_reference(model: LoadedModel) -> ModelReference:
    repo_id, _, revision = model.name.partition("@")
    return ModelReference(repo_id=repo_id, revision=revision or None, quantization=model.facts.weights[:64] or None)


def _sae_references(state: State, names: Iterable[str | None], current: ActiveSteeringState) -> Iterable[SaeReference]:
    """References with the norm that strengths in unit `norm` refer to, which may differ from the measured one."""
    for name in sorted(filter(None, names)):
        if name not in state.saes:
            raise SaeDetached(f"SAE {name!r} is not attached any more; attach it, and save then")
        reference = reference_to_attached(state.saes[name])
        norm = current.request.reference_norm or reference.reference_norm
        yield reference.model_copy(update={"reference_norm": norm})
