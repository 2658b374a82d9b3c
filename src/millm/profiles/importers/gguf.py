"""A control vector of llama.cpp: the profile that it was made of, or directions to be told as features."""

import json

from millm.errors import InvalidImport
from millm.profiles.contract import Profile
from millm.profiles.control_vector import ControlVector, decode_control_vector
from millm.profiles.importers import millm
from millm.profiles.importers.document import Node
from millm.profiles.importers.values import DocumentEntry, KnownSaes, ResidualVector

FORMAT = "GGUF control vector"


def read_gguf_entries(data: bytes) -> list[DocumentEntry]:
    """Raises InvalidImport."""
    found = decode_control_vector(data)
    if found.profile is not None:
        return [_exported_profile_entry(found, found.profile)]
    hint = found.model_hint
    vectors = tuple(
        ResidualVector(f"direction.{layer}", f"blocks.{layer}.hook_resid_post", layer, values)
        for layer, values in sorted(found.directions.items())
    )
    notes = tuple(f"{vector.path}: told as features of an attached SAE" for vector in vectors)
    if hint:
        notes += (f"controlvector.model_hint: {hint[:200]!r} is an architecture, so that the profile names no model",)
    profile = Profile.model_validate(
        {"name": "control vector", "skip": "none", "provenance": {"source": "llama.cpp", "format": "gguf"}}
    )
    return [DocumentEntry("$", "profile", profile.name, profile, vectors=vectors, notes=notes)]


def _exported_profile_entry(found: ControlVector, text: str) -> DocumentEntry:
    """Our own export: the features are known, and the directions follow from them."""
    try:
        (entry,) = millm.read_entries(Node(json.loads(text)), KnownSaes())
    except (ValueError, RecursionError) as error:
        raise InvalidImport("millm.profile of the GGUF file is no JSON") from error
    notes = tuple(f"direction.{layer}: made of the profile's features" for layer in sorted(found.directions))
    return DocumentEntry("$", "profile", entry.name, entry.profile, notes=notes)
