"""What small files and the heads of large ones say: JSON objects, and which tensors a safetensors file holds.

Files may be hostile: nothing is read that is longer than it has a right to be. What was read is remembered for as long
as the file stays as it is. Knows neither torch nor the safetensors library.
"""

import json
import math
import struct
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import msgspec

from millm.errors import InvalidModel
from millm.hub.tree import File

DTYPE_BITS = {
    "F64": 64, "I64": 64, "U64": 64, "C64": 64, "F32": 32, "I32": 32, "U32": 32, "BF16": 16, "F16": 16, "I16": 16,
    "U16": 16, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8, "I8": 8, "U8": 8,
    "BOOL": 8, "F6_E2M3": 6, "F6_E3M2": 6, "F4": 4,
}  # fmt: skip
"""Of one number of each of safetensors' types."""
FLOAT_DTYPES = {"F64": "float64", "F32": "float32", "BF16": "bfloat16", "F16": "float16"}

_MAX_JSON_BYTES = 64 << 20
"""Bytes; an index of a very large model has some 20 MB, a tokenizer up to 40."""
_MAX_HEADER_BYTES = 100_000_000
"""safetensors' own limit."""


@dataclass(frozen=True)
class TensorHeader:
    name: str
    dtype: str
    """safetensors' name: `BF16`."""
    shape: tuple[int, ...]

    @property
    def numel(self) -> int:
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        return (self.numel * DTYPE_BITS[self.dtype] + 7) // 8


class _SafetensorsEntry(msgspec.Struct, frozen=True):
    dtype: str
    shape: tuple[int, ...]
    data_offsets: tuple[int, int]


def read_json_object(file: File) -> dict[str, Any]:
    """Raises InvalidModel when it is not an object, or longer than any is."""
    return _cached_json_object(file.real_path, file.path, file.modified_ns, file.size or 0)


def read_tensor_headers(file: File) -> tuple[TensorHeader, ...]:
    """Raises InvalidModel when the file is cut short or damaged."""
    return _cached_tensor_headers(file.real_path, file.path, file.modified_ns, file.size or 0)


@lru_cache(maxsize=4096)
def _cached_json_object(path: Path, name: str, _modified: int, size: int) -> dict[str, Any]:
    if size > _MAX_JSON_BYTES:
        raise InvalidModel(f"{name} has {size:,} bytes; nothing of its kind has more than {_MAX_JSON_BYTES:,}")
    try:
        found = json.loads(path.read_bytes())  # Python's own: configurations hold `Infinity`
    except OSError as error:
        raise InvalidModel(f"{name} cannot be read ({error.strerror})") from error
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise InvalidModel(f"{name} is not a JSON object; download it again")
    return found


@lru_cache(maxsize=4096)
def _cached_tensor_headers(path: Path, name: str, _modified: int, size: int) -> tuple[TensorHeader, ...]:
    try:
        length, entries = _read_header(path, size)
    except OSError as error:
        raise InvalidModel(f"{name} cannot be read ({error.strerror})") from error
    except (ValueError, RecursionError, struct.error, msgspec.DecodeError) as error:
        raise InvalidModel(f"{name} is cut short or damaged ({_error_reason(error)}); download it again") from error
    end = 8 + length + max((entry.data_offsets[1] for entry in entries.values()), default=0)
    if end != size:
        raise InvalidModel(
            f"{name} is cut short or damaged (it has {size:,} bytes and should have {end:,}); download it again"
        )
    return tuple(TensorHeader(tensor, entry.dtype, entry.shape) for tensor, entry in entries.items())


def _read_header(path: Path, size: int) -> tuple[int, dict[str, _SafetensorsEntry]]:
    """Its length in bytes, and what it says of each tensor. Raises ValueError where that cannot be."""
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        if length > min(size - 8, _MAX_HEADER_BYTES):
            raise ValueError("its header is longer than the file")
        raw = msgspec.json.decode(file.read(length), type=dict[str, msgspec.Raw])
    raw.pop("__metadata__", None)
    entries = {name: msgspec.json.decode(entry, type=_SafetensorsEntry) for name, entry in raw.items()}
    for entry in entries.values():
        _check_entry(entry)
    return length, entries


def _error_reason(error: Exception) -> str:
    return str(error) if type(error) is ValueError else "its header cannot be read"


def _check_entry(entry: _SafetensorsEntry) -> None:
    begin, end = entry.data_offsets
    bits = DTYPE_BITS.get(entry.dtype)
    if bits is None or begin < 0 or min(entry.shape, default=0) < 0:
        raise ValueError("a tensor of no known type, or of a negative size")
    if (math.prod(entry.shape) * bits + 7) // 8 != end - begin:
        raise ValueError("a tensor's size is not that of its shape")
