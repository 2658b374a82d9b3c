"""A control vector for llama.cpp, with the profile itself in its metadata."""

import math
import struct
from collections.abc import Iterable

from millm.engine.messages import Direction
from millm.profiles.contract import Profile
from millm.profiles.control_vector import ControlVector, written
from millm.profiles.exporters.carried import check_tokens, refused

FORMAT = "GGUF"


def check(profile: Profile) -> None:
    """Raises InvalidProfile for what a vector cannot be."""
    check_tokens(profile, FORMAT, "none")
    for one in profile.features:
        if one.mode != "add":
            raise refused(
                profile, f"feature {one.index} has mode {one.mode!r}, and a vector is the same at every token"
            )


def file(profile: Profile, directions: Iterable[Direction], model_hint: str) -> bytes:
    """`directions`: what the profile adds to what is attached. Raises InvalidProfile."""
    found = {one.layer: _values(profile, one) for one in directions}
    return written(ControlVector(found, model_hint, profile.model_dump_json(exclude_defaults=True)))


def _values(profile: Profile, direction: Direction) -> tuple[float, ...]:
    if direction.hook_point != f"blocks.{direction.layer}.hook_resid_post" or direction.layer < 1:
        raise refused(
            profile,
            f"llama.cpp adds vectors to the outputs of layers from 1 on, and this one is for {direction.hook_point}",
        )
    values = struct.unpack(f"<{len(direction.vector) // 4}f", direction.vector)
    if not all(math.isfinite(value) for value in values):
        raise refused(profile, "the vector is too large for float32")
    return values
