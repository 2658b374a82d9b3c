"""A control vector for llama.cpp, with the profile itself in its metadata."""

import math
import struct
from collections.abc import Iterable

from millm.engine.messages import SteeringDirection
from millm.profiles.contract import Profile
from millm.profiles.control_vector import ControlVector, encode_control_vector
from millm.profiles.exporters.carried import check_tokens, export_error

EXPORT_FORMAT = "GGUF"


def check_exportable(profile: Profile) -> None:
    """Raises InvalidProfile for what a vector cannot be."""
    check_tokens(profile, EXPORT_FORMAT, "none")
    for one in profile.features:
        if one.mode != "add":
            raise export_error(
                profile, f"feature {one.index} has mode {one.mode!r}, and a vector is the same at every token"
            )


def export_gguf(profile: Profile, directions: Iterable[SteeringDirection], model_hint: str) -> bytes:
    """`directions`: what the profile adds to what is attached. Raises InvalidProfile."""
    found = {one.layer: _direction_values(profile, one) for one in directions}
    return encode_control_vector(ControlVector(found, model_hint, profile.model_dump_json(exclude_defaults=True)))


def _direction_values(profile: Profile, direction: SteeringDirection) -> tuple[float, ...]:
    if direction.hook_point != f"blocks.{direction.layer}.hook_resid_post" or direction.layer < 1:
        raise export_error(
            profile,
            f"llama.cpp adds vectors to the outputs of layers from 1 on, and this one is for {direction.hook_point}",
        )
    values = struct.unpack(f"<{len(direction.vector) // 4}f", direction.vector)
    if not all(math.isfinite(value) for value in values):
        raise export_error(profile, "the vector is too large for float32")
    return values
