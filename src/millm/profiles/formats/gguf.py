"""llama.cpp's control vectors in GGUF, read and written; a profile exported here lies in the metadata.

`direction.N` is added to the output of block N, counted from 0; llama.cpp cannot steer block 0 (common/common.cpp,
src/llama-adapter.cpp). Own code rather than the `gguf` package, since uploads are untrusted: the package needs 0.7 GB
and 46 s for a header of 1 MB with one long list, and follows any nesting and count.
"""

import json
import math
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from millm.engine.messages import SteeringDirection
from millm.errors import InvalidImport
from millm.profiles.formats import millm
from millm.profiles.formats.document import DocumentEntry, KnownSaes, Node, ResidualVector
from millm.profiles.formats.export_result import check_tokens, export_error
from millm.profiles.schema import Profile

FORMAT = "GGUF control vector"
EXPORT_FORMAT = "GGUF"
ARCHITECTURE = "controlvector"
PROFILE_KEY = "millm.profile"
"""The metadata key of the profile in an export."""
_MAGIC = b"GGUF"
_ALIGNMENT = 32
_UINT32, _INT32, _STRING = 4, 5, 8
_SIZES = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
_MAX_ITEMS = 4096
"""Of keys, and of tensors."""


@dataclass(frozen=True)
class ControlVector:
    """A direction per layer, in residual units."""

    directions: dict[int, tuple[float, ...]]
    model_hint: str = ""
    profile: str | None = None
    """JSON, in miLLM's own exports."""


def encode_control_vector(vector: ControlVector) -> bytes:
    """The bytes of a file of version 3, little-endian."""
    pairs = [
        ("general.architecture", (_STRING, _encode_string(ARCHITECTURE))),
        (f"{ARCHITECTURE}.model_hint", (_STRING, _encode_string(vector.model_hint))),
        (f"{ARCHITECTURE}.layer_count", (_INT32, struct.pack("<i", len(vector.directions)))),
    ]
    if vector.profile is not None:
        pairs.append((PROFILE_KEY, (_STRING, _encode_string(vector.profile))))
    head = _MAGIC + struct.pack("<IQQ", 3, len(vector.directions), len(pairs))
    for name, (kind, value) in pairs:
        head += _encode_string(name) + struct.pack("<I", kind) + value
    data = b""
    for layer, values in sorted(vector.directions.items()):
        head += _encode_string(f"direction.{layer}") + struct.pack("<IQIQ", 1, len(values), 0, len(data))
        data += _pad(struct.pack(f"<{len(values)}f", *values))
    return _pad(head) + data


def decode_control_vector(data: bytes) -> ControlVector:
    """Raises InvalidImport."""
    try:
        return _GgufReader(data).read_control_vector()
    except (struct.error, UnicodeDecodeError, OverflowError) as error:
        raise InvalidImport("the GGUF file is damaged, or cut short") from error


def _encode_string(text: str) -> bytes:
    encoded = text.encode()
    return struct.pack("<Q", len(encoded)) + encoded


def _pad(data: bytes) -> bytes:
    return data + bytes(-len(data) % _ALIGNMENT)


class _GgufReader:
    """Reads values in order from `offset`, which advances."""

    def __init__(self, data: bytes) -> None:
        self.data, self.offset = data, 0

    def read_control_vector(self) -> ControlVector:
        magic, version, tensors, keys = self.unpack("<4sIQQ")
        if magic != _MAGIC or version not in (2, 3) or tensors > _MAX_ITEMS or keys > _MAX_ITEMS:
            raise InvalidImport(f"only GGUF of version 2 or 3, with at most {_MAX_ITEMS} keys and tensors, can be read")
        metadata = {self.read_string(): self.read_value() for _ in range(keys)}
        if metadata.get("general.architecture") != ARCHITECTURE:
            raise InvalidImport(f"the GGUF file is no control vector: its architecture is not {ARCHITECTURE!r}")
        rows = [self.read_tensor_header() for _ in range(tensors)]
        alignment = metadata.get("general.alignment", _ALIGNMENT)
        if not isinstance(alignment, int) or alignment < 1:
            raise InvalidImport("general.alignment of the GGUF file has to be a positive number")
        start = -(-self.offset // alignment) * alignment
        profile = metadata.get(PROFILE_KEY)
        return ControlVector(
            {layer: self.read_floats(start + offset, length) for layer, length, offset in rows},
            str(metadata.get(f"{ARCHITECTURE}.model_hint", "")),
            profile if isinstance(profile, str) else None,
        )

    def read_tensor_header(self) -> tuple[int, int, int]:
        name = self.read_string()
        (dimensions,) = self.unpack("<I")
        layer = name.removeprefix("direction.")
        if layer == name or not layer.isascii() or not layer.isdigit() or len(layer) > 5 or layer == "0":
            raise InvalidImport(f"a tensor of a control vector is called direction.<1…>, not {name[:80]!r}")
        if dimensions != 1:
            raise InvalidImport(f"{name} has to have one dimension")
        length, kind, offset = self.unpack("<QIQ")
        if kind != 0 or length * 4 > len(self.data):
            raise InvalidImport(f"{name} has to be F32, and to be in the file")
        return int(layer), length, offset

    def read_floats(self, start: int, length: int) -> tuple[float, ...]:
        values = struct.unpack_from(f"<{length}f", self.data, start)
        if not all(math.isfinite(value) for value in values):
            raise InvalidImport("the GGUF file holds numbers that are not finite")
        return values

    def unpack(self, layout: str) -> tuple[Any, ...]:
        values = struct.unpack_from(layout, self.data, self.offset)
        self.offset += struct.calcsize(layout)
        return values

    def read_string(self) -> str:
        (length,) = self.unpack("<Q")
        if length > len(self.data) - self.offset:
            raise InvalidImport("the GGUF file is damaged, or cut short")
        self.offset += length
        return str(self.data[self.offset - length : self.offset], "utf-8")

    def read_value(self) -> object:
        (kind,) = self.unpack("<I")
        if kind == _STRING:
            return self.read_string()
        if kind not in _SIZES:
            raise InvalidImport("the GGUF file's metadata holds lists, which no control vector needs")
        return self.unpack(_SIZES[kind])[0]


def check_exportable(profile: Profile) -> None:
    """Raises InvalidProfile for a profile that depends on tokens."""
    check_tokens(profile, EXPORT_FORMAT, "none")
    for feature in profile.features:
        if feature.mode != "add":
            raise export_error(
                profile, f"feature {feature.index} has mode {feature.mode!r}, and a vector is the same at every token"
            )


def export_gguf(profile: Profile, directions: Iterable[SteeringDirection], model_hint: str) -> bytes:
    """`directions`: the profile's sums by hook point. Raises InvalidProfile."""
    vectors = {direction.layer: _direction_values(profile, direction) for direction in directions}
    return encode_control_vector(ControlVector(vectors, model_hint, profile.model_dump_json(exclude_defaults=True)))


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


def read_gguf_entries(data: bytes) -> list[DocumentEntry]:
    """Raises InvalidImport."""
    vector = decode_control_vector(data)
    if vector.profile is not None:
        return [_exported_profile_entry(vector, vector.profile)]
    directions = tuple(
        ResidualVector(f"direction.{layer}", f"blocks.{layer}.hook_resid_post", layer, values)
        for layer, values in sorted(vector.directions.items())
    )
    notes = tuple(f"{direction.path}: expressed as features of an attached SAE" for direction in directions)
    if vector.model_hint:
        notes += (
            f"controlvector.model_hint: {vector.model_hint[:200]!r} is an architecture; the profile names no model",
        )
    profile = Profile.model_validate(
        {"name": "control vector", "skip": "none", "provenance": {"source": "llama.cpp", "format": "gguf"}}
    )
    return [DocumentEntry("$", "profile", profile.name, profile, vectors=directions, notes=notes)]


def _exported_profile_entry(vector: ControlVector, text: str) -> DocumentEntry:
    """miLLM's own export: the profile has the features, and the directions follow from them."""
    try:
        (entry,) = millm.read_entries(Node(json.loads(text)), KnownSaes())
    except (ValueError, RecursionError) as error:
        raise InvalidImport("millm.profile of the GGUF file is no JSON") from error
    notes = tuple(f"direction.{layer}: computed from the profile's features" for layer in sorted(vector.directions))
    return DocumentEntry("$", "profile", entry.name, entry.profile, notes=notes)
