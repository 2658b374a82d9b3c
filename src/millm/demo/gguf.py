"""Read a GGUF file: its metadata, its tensor table, and its Q4_1, Q8_0, F16 and F32 tensors as float32.

Only what the demo's weights need; GGUF is not a format miLLM supports elsewhere. The layout is that of
https://github.com/ggml-org/ggml/blob/master/docs/gguf.md (version 3, little-endian).
"""

import math
import mmap
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from millm.errors import InvalidModel

Floats = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.uint8]

BLOCK = 32
"""Values per quantised block."""

_SCALARS = {
    0: "<u1",
    1: "<i1",
    2: "<u2",
    3: "<i2",
    4: "<u4",
    5: "<i4",
    6: "<f4",
    7: "?",
    10: "<u8",
    11: "<i8",
    12: "<f8",
}
_STRING, _ARRAY = 8, 9


@dataclass(frozen=True)
class TensorType:
    """How a tensor's values are packed: so many bytes hold so many values."""

    name: str
    block_values: int
    block_bytes: int
    unpack: Callable[[Bytes], Floats]
    """[blocks, block_bytes] → [blocks, block_values]"""


def _q4_1(blocks: Bytes) -> Floats:
    scale, minimum = blocks[:, 0:2].view("<f2"), blocks[:, 2:4].view("<f2")  # [blocks, 1] each
    packed = blocks[:, 4:]  # [blocks, 16]: value i in the low, value i + 16 in the high four bits
    levels = np.concatenate([packed & 0x0F, packed >> 4], axis=1).astype(np.float32)
    return scale.astype(np.float32) * levels + minimum.astype(np.float32)


def _q8_0(blocks: Bytes) -> Floats:
    scale = blocks[:, 0:2].view("<f2")  # [blocks, 1]
    return scale.astype(np.float32) * blocks[:, 2:].view(np.int8).astype(np.float32)


_TYPES = {
    0: TensorType("F32", 1, 4, lambda blocks: blocks.view("<f4").astype(np.float32)),
    1: TensorType("F16", 1, 2, lambda blocks: blocks.view("<f2").astype(np.float32)),
    3: TensorType("Q4_1", BLOCK, 2 + 2 + BLOCK // 2, _q4_1),
    8: TensorType("Q8_0", BLOCK, 2 + BLOCK, _q8_0),
}


@dataclass(frozen=True)
class Tensor:
    """A row of the tensor table; `values()` unpacks it."""

    name: str
    shape: tuple[int, ...]
    type: TensorType
    packed: Bytes

    def values(self) -> Floats:
        """The tensor in float32: scale × level (+ minimum), computed as such; outermost dimension first."""
        return self.type.unpack(self.packed.reshape(-1, self.type.block_bytes)).reshape(self.shape)


@dataclass(frozen=True)
class Gguf:
    """An open GGUF file: tensors are views of the mapped file until their values are asked for."""

    metadata: dict[str, Any]
    tensors: tuple[Tensor, ...]


def read(path: Path) -> Gguf:
    """Read the header of a GGUF file. Raises InvalidModel for anything that cannot be read exactly."""
    with path.open("rb") as file:
        try:
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except ValueError as empty:
            raise InvalidModel(f"{path.name} is empty, not a GGUF file") from empty
    cursor = _Cursor(data)
    try:
        return _read(cursor, path.name)
    except (struct.error, ValueError, ArithmeticError) as error:
        raise InvalidModel(f"{path.name} is damaged or cut short near byte {cursor.at}: {error}") from error


def _read(cursor: "_Cursor", name: str) -> Gguf:
    magic, version, tensor_count, metadata_count = cursor.unpack("<4sIQQ")
    if magic != b"GGUF":
        raise InvalidModel(f"{name} is not a GGUF file: it starts with {magic!r} instead of b'GGUF'")
    if version != 3:
        raise InvalidModel(f"{name} is GGUF version {version}; only version 3 (little-endian) can be read")
    metadata = {}
    for _ in range(metadata_count):
        key = cursor.string()
        metadata[key] = cursor.value(*cursor.unpack("<I"))
    rows = [_table_row(cursor, name) for _ in range(tensor_count)]
    alignment = _whole(metadata, "general.alignment", 32)
    start = -(-cursor.at // alignment) * alignment
    return Gguf(metadata, tuple(_tensor(cursor, row, start) for row in rows))


def _whole(metadata: dict[str, Any], key: str, default: int) -> int:
    value = metadata.get(key, default)
    if not isinstance(value, int):
        raise ValueError(f"{key} is {value!r}, not a whole number")
    return value


_Row = tuple[str, tuple[int, ...], TensorType, int]


def _table_row(cursor: "_Cursor", name: str) -> _Row:
    tensor = cursor.string()
    (dimensions,) = cursor.unpack("<I")
    shape = cursor.unpack(f"<{dimensions}Q")[::-1]
    code, offset = cursor.unpack("<IQ")
    if code not in _TYPES:
        known = ", ".join(kind.name for kind in _TYPES.values())
        raise InvalidModel(f"{name}: tensor {tensor!r} has GGML type {code}; only {known} can be read")
    return tensor, shape, _TYPES[code], offset


def _tensor(cursor: "_Cursor", row: _Row, start: int) -> Tensor:
    name, shape, kind, offset = row
    if shape and shape[-1] % kind.block_values:
        raise ValueError(
            f"rows of {shape[-1]} values of tensor {name!r} do not divide into blocks of {kind.block_values}"
        )
    size = math.prod(shape) // kind.block_values * kind.block_bytes
    cursor.at = start + offset
    return Tensor(name, shape, kind, cursor.array("<u1", size))


class _Cursor:
    """A place in the file that moves as values are read; past the end: ValueError or struct.error."""

    def __init__(self, data: mmap.mmap) -> None:
        self.data = data
        self.at = 0

    def unpack(self, layout: str) -> tuple[Any, ...]:
        values = struct.unpack_from(layout, self.data, self.at)
        self.at += struct.calcsize(layout)
        return values

    def array(self, dtype: str, count: int) -> npt.NDArray[Any]:
        values = np.frombuffer(self.data, dtype, count, self.at)
        self.at += values.nbytes
        return values

    def string(self) -> str:
        (length,) = struct.unpack_from("<Q", self.data, self.at)
        start, self.at = self.at + 8, self.at + 8 + length
        if self.at > len(self.data):
            raise ValueError(f"a text of {length} bytes does not fit")
        return str(self.data[start : self.at], "utf-8")

    def value(self, kind: int) -> Any:
        if kind == _STRING:
            return self.string()
        if kind == _ARRAY:
            element, count = self.unpack("<IQ")
            if element == _STRING:
                return [self.string() for _ in range(count)]
            return self.array(_scalar(element), count).tolist()
        return self.array(_scalar(kind), 1).item()


def _scalar(kind: int) -> str:
    if kind not in _SCALARS:
        raise ValueError(f"metadata of type {kind} is not known")
    return _SCALARS[kind]
