"""A profile as a file to download, in one of the formats that are known."""

import json
from dataclasses import dataclass
from typing import Literal

from millm.engine.messages import Directions, DirectionsFound
from millm.errors import InvalidSteering
from millm.profiles.binding import bind, check_model
from millm.profiles.contract import Profile
from millm.profiles.exporters import adr, gguf, lm_eval, mistudio, neuronpedia
from millm.profiles.exporters.carried import Measured, refused
from millm.profiles.resolving import resolve
from millm.state import AttachedSae, State

Format = Literal["millm", "adr", "mistudio", "neuronpedia", "lm-eval", "gguf"]
_DOCUMENTS = {"adr": adr.document, "mistudio": mistudio.document, "neuronpedia": neuronpedia.document}
_JSON = "application/json"


@dataclass(frozen=True)
class Exported:
    """A file."""

    name: str
    media_type: str
    body: bytes


async def exported(state: State, profile: Profile, format: Format) -> Exported:
    """Raises InvalidProfile naming what the format cannot carry."""
    measured = measured_by(state.saes, profile)
    if format == "gguf":
        return Exported(f"{profile.name}.gguf", "application/octet-stream", await _vector(state, profile))
    if format == "lm-eval":
        return Exported(f"{profile.name}.csv", "text/csv", lm_eval.text(profile, measured).encode())
    if format == "millm":
        return Exported(f"{profile.name}.json", _JSON, native(profile))
    document = _DOCUMENTS[format](profile, measured)
    return Exported(f"{profile.name}.{format}.json", _JSON, _json(document))


def native(profile: Profile) -> bytes:
    """All of it."""
    return _json({"version": profile.version, **profile.model_dump(mode="json", exclude_defaults=True)})


def measured_by(saes: dict[str, AttachedSae], profile: Profile) -> Measured:
    """Of the attached SAEs that the profile means, if they are the ones."""
    try:
        bound = bind(saes, profile)
    except InvalidSteering:
        return Measured()
    only = next(iter(saes)) if len(saes) == 1 else None
    first = profile.saes[0].called if len(profile.saes) == 1 else None
    meant = {one.sae or first: now.sae or only for one, now in zip(profile.features, bound.features, strict=True)}
    known = {name: saes[sae] for name, sae in meant.items() if sae in saes}
    return Measured(
        {name: sae.facts.residual_norm for name, sae in known.items()},
        {name: sae.max_acts for name, sae in known.items()},
    )


async def _vector(state: State, profile: Profile) -> bytes:
    model = state.model_or_raise()
    gguf.check(profile)
    check_model(profile, model)
    steering = resolve(state.saes, bind(state.saes, profile))
    if steering is None:
        raise refused(profile, "it steers nothing")
    found = await state.engine.study(Directions(id=state.engine.new_id("study"), steering=steering))
    assert isinstance(found, DirectionsFound)
    return gguf.file(profile, found.directions, model.facts.architecture)


def _json(document: object) -> bytes:
    return json.dumps(document, ensure_ascii=False, indent=2).encode() + b"\n"
