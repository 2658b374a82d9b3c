"""What an npz file holds, told from its directory and its arrays' headers: before a byte of them is unpacked.

A zip of 400 kB can unpack to 400 MB, and an array's header can claim 40 GB: what numpy would do with them is not tried.
Knows no torch.
"""

import math
import re
import struct
import tokenize
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
from numpy.lib import format as npy

from millm.errors import InvalidSae

MOST_ENTRIES = 16
MOST_BYTES = 8 << 30
MOST_RATIO = 20
"""Unpacked to packed; weights hardly pack at all."""

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}\.npy")
_FLOATS = ("f2", "f4", "f8")
_READ = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
_NOT_NPZ = (
    OSError, EOFError, ValueError, KeyError, IndexError, TypeError, SyntaxError, RuntimeError, MemoryError,
    OverflowError, struct.error, tokenize.TokenError, zipfile.BadZipFile, zlib.error,
)  # fmt: skip
"""What zipfile and numpy raise on files that a fuzzer made; among them encrypted entries and unknown methods."""


@dataclass(frozen=True)
class Array:
    shape: tuple[int, ...]
    dtype: str
    """`float32`…"""

    @property
    def bytes(self) -> int:
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize


def npz_shapes(path: Path, name: str | None = None) -> dict[str, Array]:
    """By the arrays' names. Raises InvalidSae for what is no npz of plain numbers, or unpacks to more than it says."""
    name = name or path.name
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            _check_directory(entries, name)
            return {entry.filename.removesuffix(".npy"): _array(archive, entry, name) for entry in entries}
    except _NOT_NPZ as error:
        raise InvalidSae(f"{name} is not a whole npz file of plain numbers; download it again") from error


def _check_directory(entries: list[zipfile.ZipInfo], name: str) -> None:
    if len(entries) > MOST_ENTRIES:
        raise InvalidSae(f"{name} holds {len(entries)} arrays; an SAE has at most {MOST_ENTRIES}")
    for entry in entries:
        if not _NAME.fullmatch(entry.filename):
            raise InvalidSae(f"{name} holds {entry.filename[:60]!r}, which is no array's name")
    unpacked, packed = sum(entry.file_size for entry in entries), sum(entry.compress_size for entry in entries)
    if unpacked > MOST_BYTES:
        raise InvalidSae(f"{name} unpacks to {unpacked:,} bytes; at most {MOST_BYTES:,} are read")
    if unpacked > MOST_RATIO * max(packed, 1):
        raise InvalidSae(f"{name} unpacks to more than {MOST_RATIO} times its size; weights do not")


def _array(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, name: str) -> Array:
    with archive.open(entry) as file:
        shape, dtype = _header(file)
        begins = file.tell()
    if dtype.hasobject:
        raise ValueError("Python objects")
    if dtype.str[1:] not in _FLOATS:
        tensor = entry.filename.removesuffix(".npy")
        raise InvalidSae(f"{name}: tensor {tensor} has type {dtype}; it must be a 16, 32 or 64 bit float")
    if min(shape, default=0) < 0 or begins + math.prod(shape) * dtype.itemsize != entry.file_size:
        raise InvalidSae(f"{name}: {entry.filename} is not as long as its shape {list(shape)} says; download it again")
    return Array(shape, dtype.name)


def _header(file: IO[bytes]) -> "tuple[tuple[int, ...], np.dtype[np.generic]]":
    shape, _, dtype = _READ[npy.read_magic(file)](file)
    return shape, dtype
