"""A control vector of llama.cpp: the profile that it was made of, or directions to be told as features."""

import json

from millm.errors import InvalidImport
from millm.profiles.contract import Profile
from millm.profiles.control_vector import ControlVector, read
from millm.profiles.importers import millm
from millm.profiles.importers.document import Node
from millm.profiles.importers.values import Entry, Known, Vector

FORMAT = "GGUF control vector"


def preview(data: bytes) -> list[Entry]:
    """Raises InvalidImport."""
    found = read(data)
    if found.profile is not None:
        return [_told(found, found.profile)]
    hint = found.model_hint
    vectors = tuple(
        Vector(f"direction.{layer}", f"blocks.{layer}.hook_resid_post", layer, values)
        for layer, values in sorted(found.directions.items())
    )
    notes = tuple(f"{vector.path}: told as features of an attached SAE" for vector in vectors)
    if hint:
        notes += (f"controlvector.model_hint: {hint[:200]!r} is an architecture, so that the profile names no model",)
    profile = Profile.model_validate(
        {"name": "control vector", "skip": "none", "provenance": {"source": "llama.cpp", "format": "gguf"}}
    )
    return [Entry("$", "profile", profile.name, profile, vectors=vectors, notes=notes)]


def _told(found: ControlVector, text: str) -> Entry:
    """Our own export: the features are known, and the directions follow from them."""
    try:
        (entry,) = millm.entries(Node(json.loads(text)), Known())
    except (ValueError, RecursionError) as error:
        raise InvalidImport("millm.profile of the GGUF file is no JSON") from error
    notes = tuple(f"direction.{layer}: made of the profile's features" for layer in sorted(found.directions))
    return Entry("$", "profile", entry.name, entry.profile, notes=notes)
