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

FloatArray = npt.NDArray[np.float32]
ByteArray = npt.NDArray[np.uint8]

BLOCK_SIZE = 32
"""Values per quantised block."""

_SCALAR_DTYPES = {
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
_STRING_TYPE, _ARRAY_TYPE = 8, 9


@dataclass(frozen=True)
class TensorType:
    """How a tensor's values are packed: so many bytes hold so many values."""

    name: str
    block_values: int
    block_bytes: int
    unpack: Callable[[ByteArray], FloatArray]
    """[blocks, block_bytes] → [blocks, block_values]"""


def _unpack_q4_1(blocks: ByteArray) -> FloatArray:
    scale, minimum = blocks[:, 0:2].view("<f2"), blocks[:, 2:4].view("<f2")  # [blocks, 1] each
    packed = blocks[:, 4:]  # [blocks, 16]: value i in the low, value i + 16 in the high four bits
    levels = np.concatenate([packed & 0x0F, packed >> 4], axis=1).astype(np.float32)
    return scale.astype(np.float32) * levels + minimum.astype(np.float32)


def _unpack_q8_0(blocks: ByteArray) -> FloatArray:
    scale = blocks[:, 0:2].view("<f2")  # [blocks, 1]
    return scale.astype(np.float32) * blocks[:, 2:].view(np.int8).astype(np.float32)


_TENSOR_TYPES = {
    0: TensorType("F32", 1, 4, lambda blocks: blocks.view("<f4").astype(np.float32)),
    1: TensorType("F16", 1, 2, lambda blocks: blocks.view("<f2").astype(np.float32)),
    3: TensorType("Q4_1", BLOCK_SIZE, 2 + 2 + BLOCK_SIZE // 2, _unpack_q4_1),
    8: TensorType("Q8_0", BLOCK_SIZE, 2 + BLOCK_SIZE, _unpack_q8_0),
}


@dataclass(frozen=True)
class GgufTensor:
    """A row of the tensor table; `values()` unpacks it."""

    name: str
    shape: tuple[int, ...]
    type: TensorType
    packed: ByteArray

    def values(self) -> FloatArray:
        """The tensor in float32: scale × level (+ minimum), computed as such; outermost dimension first."""
        return self.type.unpack(self.packed.reshape(-1, self.type.block_bytes)).reshape(self.shape)


@dataclass(frozen=True)
class GgufFile:
    """An open GGUF file: tensors are views of the mapped file until their values are asked for."""

    metadata: dict[str, Any]
    tensors: tuple[GgufTensor, ...]


def read_gguf(path: Path) -> GgufFile:
    """Read the header of a GGUF file. Raises InvalidModel for anything that cannot be read exactly."""
    with path.open("rb") as file:
        try:
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except ValueError as empty:
            raise InvalidModel(f"{path.name} is empty, not a GGUF file") from empty
    cursor = _Cursor(data)
    try:
        return _read_contents(cursor, path.name)
    except (struct.error, ValueError, ArithmeticError) as error:
        raise InvalidModel(f"{path.name} is damaged or cut short near byte {cursor.position}: {error}") from error


def _read_contents(cursor: "_Cursor", name: str) -> GgufFile:
    magic, version, tensor_count, metadata_count = cursor.unpack("<4sIQQ")
    if magic != b"GGUF":
        raise InvalidModel(f"{name} is not a GGUF file: it starts with {magic!r} instead of b'GGUF'")
    if version != 3:
        raise InvalidModel(f"{name} is GGUF version {version}; only version 3 (little-endian) can be read")
    metadata = {}
    for _ in range(metadata_count):
        key = cursor.string()
        metadata[key] = cursor.value(*cursor.unpack("<I"))
    rows = [_read_tensor_row(cursor, name) for _ in range(tensor_count)]
    alignment = _read_int(metadata, "general.alignment", 32)
    start = -(-cursor.position // alignment) * alignment
    return GgufFile(metadata, tuple(_view_tensor(cursor, row, start) for row in rows))


def _read_int(metadata: dict[str, Any], key: str, default: int) -> int:
    value = metadata.get(key, default)
    if not isinstance(value, int):
        raise ValueError(f"{key} is {value!r}, not a whole number")
    return value


_TensorRow = tuple[str, tuple[int, ...], TensorType, int]


def _read_tensor_row(cursor: "_Cursor", name: str) -> _TensorRow:
    tensor = cursor.string()
    (dimensions,) = cursor.unpack("<I")
    shape = cursor.unpack(f"<{dimensions}Q")[::-1]
    code, offset = cursor.unpack("<IQ")
    if code not in _TENSOR_TYPES:
        known = ", ".join(kind.name for kind in _TENSOR_TYPES.values())
        raise InvalidModel(f"{name}: tensor {tensor!r} has GGML type {code}; only {known} can be read")
    return tensor, shape, _TENSOR_TYPES[code], offset


def _view_tensor(cursor: "_Cursor", row: _TensorRow, start: int) -> GgufTensor:
    name, shape, kind, offset = row
    if shape and shape[-1] % kind.block_values:
        raise ValueError(
            f"rows of {shape[-1]} values of tensor {name!r} do not divide into blocks of {kind.block_values}"
        )
    size = math.prod(shape) // kind.block_values * kind.block_bytes
    cursor.position = start + offset
    return GgufTensor(name, shape, kind, cursor.array("<u1", size))


class _Cursor:
    """A place in the file that moves as values are read; past the end: ValueError or struct.error."""

    def __init__(self, data: mmap.mmap) -> None:
        self.data = data
        self.position = 0

    def unpack(self, layout: str) -> tuple[Any, ...]:
        values = struct.unpack_from(layout, self.data, self.position)
        self.position += struct.calcsize(layout)
        return values

    def array(self, dtype: str, count: int) -> npt.NDArray[Any]:
        values = np.frombuffer(self.data, dtype, count, self.position)
        self.position += values.nbytes
        return values

    def string(self) -> str:
        (length,) = struct.unpack_from("<Q", self.data, self.position)
        start, self.position = self.position + 8, self.position + 8 + length
        if self.position > len(self.data):
            raise ValueError(f"a text of {length} bytes does not fit")
        return str(self.data[start : self.position], "utf-8")

    def value(self, kind: int) -> Any:
        if kind == _STRING_TYPE:
            return self.string()
        if kind == _ARRAY_TYPE:
            element, count = self.unpack("<IQ")
            if element == _STRING_TYPE:
                return [self.string() for _ in range(count)]
            return self.array(_scalar_dtype(element), count).tolist()
        return self.array(_scalar_dtype(kind), 1).item()


def _scalar_dtype(kind: int) -> str:
    if kind not in _SCALAR_DTYPES:
        raise ValueError(f"metadata of type {kind} is not known")
    return _SCALAR_DTYPES[kind]
