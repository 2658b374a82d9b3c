"""Is a file what the hub says it is? huggingface_hub compares lengths only, and flushes nothing to the disk."""

import hashlib
import os
from pathlib import Path

_BLOCK = 1 << 22
_SHA256_DIGITS = 64


def matches_hash(path: Path, size: int, expected: str) -> bool:
    """`wanted`: sha256, or git's sha1 of a blob, in hexadecimal digits."""
    return path.is_file() and path.stat().st_size == size and _digest(path, size, expected) == expected


def fsync(path: Path) -> None:
    """A file or a folder, to the disk: after this a power cut leaves it whole."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _digest(path: Path, size: int, expected: str) -> str:
    sum_ = (
        hashlib.sha256()
        if len(expected) == _SHA256_DIGITS
        else hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
    )
    with path.open("rb", buffering=0) as file:
        while block := file.read(_BLOCK):
            sum_.update(block)
    return sum_.hexdigest()
