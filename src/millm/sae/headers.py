"""Facts about SAE files that are known without reading a tensor: npz headers, and Gemma Scope's paths.

Imports no torch, for the API process.
"""

import math
import re
import struct
import tokenize
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.lib import format as npy

from millm.errors import InvalidSae

MAX_NPZ_ENTRIES = 16
MAX_UNPACKED_BYTES = 8 << 30
MAX_COMPRESSION_RATIO = 20  # unpacked to packed; weights hardly compress
NPZ_ERRORS = (
    OSError, EOFError, ValueError, KeyError, IndexError, TypeError, SyntaxError, RuntimeError, MemoryError,
    OverflowError, struct.error, tokenize.TokenError, zipfile.BadZipFile, zlib.error,
)  # fmt: skip
"""Raised by zipfile and numpy on the files of a fuzzer, among them encrypted entries and unknown methods."""
_ENTRY_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}\.npy")
_NPZ_FLOAT_TYPES = (np.float16, np.float32, np.float64)
_HEADER_READERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
_REPOSITORY = re.compile(r"gemma-scope-(?P<size>\d+b)-(?P<tuning>pt|it)-(?P<site>res|mlp|att|transcoders)\b")
_LAYER_IN_PATH = re.compile(r"/layer_(\d+)(?:/|$)")
_HOOK_BY_SITE = {
    "res": "hook_resid_post",
    "mlp": "hook_mlp_out",
    "att": "attn.hook_z",
    "transcoders": "ln2.hook_normalized",
}


@dataclass(frozen=True)
class GemmaScopePath:
    """Where a Gemma Scope SAE reads, which only its path contains; None for missing parts.

    Such as `gemma-scope-2b-pt-res/layer_12/width_16k/average_l0_82`.
    """

    model_name: str | None = None
    hook_name: str | None = None
    hook_name_out: str | None = None
    is_transcoder: bool = False
    is_embedding: bool = False


def parse_gemma_scope_path(path: str) -> GemmaScopePath:
    repository, layer = _REPOSITORY.search(path), _LAYER_IN_PATH.search(path)
    if repository is None:
        return GemmaScopePath()
    site = repository["site"]
    model_name = f"google/gemma-2-{repository['size']}" + ("-it" if repository["tuning"] == "it" else "")
    if site == "res" and "/embedding" in path:
        return GemmaScopePath(model_name, "hook_embed", is_embedding=True)
    return GemmaScopePath(
        model_name=model_name,
        hook_name=f"blocks.{layer[1]}.{_HOOK_BY_SITE[site]}" if layer else None,
        hook_name_out=f"blocks.{layer[1]}.hook_mlp_out" if layer and site == "transcoders" else None,
        is_transcoder=site == "transcoders",
    )


@dataclass(frozen=True)
class ArrayHeader:
    shape: tuple[int, ...]
    dtype: str

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize


def read_npz_headers(path: Path, name: str | None = None) -> dict[str, ArrayHeader]:
    """The headers by array name, read before any array is unpacked.

    A zip of 400 kB can unpack to 400 MB, and an array header can claim 40 GB. Raises InvalidSae for a file that is not
    an npz of plain numbers, or exceeds a limit.
    """
    name = name or path.name
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            _check_directory(entries, name)
            return {entry.filename.removesuffix(".npy"): _read_array_header(archive, entry, name) for entry in entries}
    except NPZ_ERRORS as error:
        raise InvalidSae(f"{name} is not a complete npz file of plain numbers; download it again") from error


def _check_directory(entries: list[zipfile.ZipInfo], name: str) -> None:
    if len(entries) > MAX_NPZ_ENTRIES:
        raise InvalidSae(f"{name} holds {len(entries)} arrays; an SAE has at most {MAX_NPZ_ENTRIES}")
    for entry in entries:
        if not _ENTRY_NAME.fullmatch(entry.filename):
            raise InvalidSae(f"{name} holds {entry.filename[:60]!r}, which is not an array's name")
    unpacked, packed = sum(entry.file_size for entry in entries), sum(entry.compress_size for entry in entries)
    if unpacked > MAX_UNPACKED_BYTES:
        raise InvalidSae(f"{name} unpacks to {unpacked:,} bytes; at most {MAX_UNPACKED_BYTES:,} are read")
    if unpacked > MAX_COMPRESSION_RATIO * max(packed, 1):
        raise InvalidSae(f"{name} unpacks to more than {MAX_COMPRESSION_RATIO} times its size; weights do not")


def _read_array_header(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, name: str) -> ArrayHeader:
    with archive.open(entry) as file:
        shape, _, dtype = _HEADER_READERS[npy.read_magic(file)](file)
        data_offset = file.tell()
    if dtype.hasobject:
        raise ValueError("Python objects")
    if dtype not in _NPZ_FLOAT_TYPES:
        tensor = entry.filename.removesuffix(".npy")
        raise InvalidSae(f"{name}: tensor {tensor} has type {dtype}; it must be a 16, 32 or 64 bit float")
    if min(shape, default=0) < 0 or data_offset + math.prod(shape) * dtype.itemsize != entry.file_size:
        raise InvalidSae(f"{name}: {entry.filename} is not as long as its shape {list(shape)} says; download it again")
    return ArrayHeader(shape, dtype.name)
