"""A profile as a file to download, in one of the formats that are known."""

import json
from dataclasses import dataclass
from typing import Literal

from millm.engine.messages import ComputeDirections, DirectionsComputed
from millm.errors import InvalidSteering
from millm.loaded import AttachedSae
from millm.profiles.formats import adr, gguf, lm_eval, mistudio, neuronpedia
from millm.profiles.formats.export_result import SaeMeasurements, export_error
from millm.profiles.resolve import bind_profile, check_model, resolve_steering
from millm.profiles.schema import Profile
from millm.state import State

ExportFormat = Literal["millm", "adr", "mistudio", "neuronpedia", "lm-eval", "gguf"]
_DOCUMENT_EXPORTERS = {
    "adr": adr.export_document,
    "mistudio": mistudio.export_document,
    "neuronpedia": neuronpedia.export_document,
}
_JSON = "application/json"


@dataclass(frozen=True)
class ExportedFile:
    """A file."""

    name: str
    media_type: str
    body: bytes


async def render_export(state: State, profile: Profile, format: ExportFormat) -> ExportedFile:
    """Raises InvalidProfile naming what the format cannot carry."""
    measured = sae_measurements(state.saes, profile)
    if format == "gguf":
        return ExportedFile(
            f"{profile.name}.gguf", "application/octet-stream", await _control_vector_file(state, profile)
        )
    if format == "lm-eval":
        return ExportedFile(f"{profile.name}.csv", "text/csv", lm_eval.export_csv(profile, measured).encode())
    if format == "millm":
        return ExportedFile(f"{profile.name}.json", _JSON, millm_document(profile))
    document = _DOCUMENT_EXPORTERS[format](profile, measured)
    return ExportedFile(f"{profile.name}.{format}.json", _JSON, _encode_json(document))


def millm_document(profile: Profile) -> bytes:
    """All of it."""
    return _encode_json({"version": profile.version, **profile.model_dump(mode="json", exclude_defaults=True)})


def sae_measurements(saes: dict[str, AttachedSae], profile: Profile) -> SaeMeasurements:
    """Of the attached SAEs that the profile means, if they are the ones."""
    try:
        bound = bind_profile(saes, profile)
    except InvalidSteering:
        return SaeMeasurements()
    only = next(iter(saes)) if len(saes) == 1 else None
    first = profile.saes[0].alias if len(profile.saes) == 1 else None
    meant = {one.sae or first: now.sae or only for one, now in zip(profile.features, bound.features, strict=True)}
    known = {name: saes[sae] for name, sae in meant.items() if sae in saes}
    return SaeMeasurements(
        {name: sae.facts.residual_norm for name, sae in known.items()},
        {name: sae.max_acts for name, sae in known.items()},
    )


async def _control_vector_file(state: State, profile: Profile) -> bytes:
    model = state.model_or_raise()
    gguf.check_exportable(profile)
    check_model(profile, model)
    steering = resolve_steering(state.saes, bind_profile(state.saes, profile))
    if steering is None:
        raise export_error(profile, "it steers nothing")
    found = await state.engine.query_features(ComputeDirections(id=state.engine.new_id("study"), steering=steering))
    assert isinstance(found, DirectionsComputed)
    return gguf.export_gguf(profile, found.directions, model.facts.architecture)


def _encode_json(document: object) -> bytes:
    return json.dumps(document, ensure_ascii=False, indent=2).encode() + b"\n"
