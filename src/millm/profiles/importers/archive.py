"""A ZIP archive as one JSON document, {file name: its JSON}: in memory, within limits, nothing unpacked to disk."""

import io
import json
import zipfile
import zlib
from typing import Any

from millm.errors import InvalidImport

MAX_ARCHIVE_FILES = 100_000
MAX_ARCHIVE_BYTES = 64 * 2**20
"""Of all JSON files of an archive, unpacked."""


def read_archive(data: bytes) -> tuple[dict[str, Any], tuple[str, ...]]:
    """→ the JSON files, and the names of the others. Raises InvalidImport."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            files = [info for info in archive.infolist() if not info.is_dir()]
            _check_archive(files)
            told = [info for info in files if info.filename.endswith(".json")]
            found = {info.filename: _read_json(archive, info) for info in told}
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise InvalidImport("the ZIP archive is damaged, encrypted or packed in a way that is not known") from error
    return found, tuple(info.filename for info in files if info.filename not in found)


def _check_archive(files: list[zipfile.ZipInfo]) -> None:
    if len(files) > MAX_ARCHIVE_FILES:
        raise InvalidImport(f"the ZIP archive holds {len(files):,} files, and at most {MAX_ARCHIVE_FILES:,} are read")
    for info in files:
        parts = info.filename.replace("\\", "/").split("/")
        if info.filename.startswith("/") or ".." in parts or ":" in parts[0] or not info.filename.isprintable():
            raise InvalidImport(f"the ZIP archive holds a file that would lie outside it: {info.filename[:80]!r}")
    if sum(info.file_size for info in files if info.filename.endswith(".json")) > MAX_ARCHIVE_BYTES:
        raise InvalidImport(
            f"the JSON files of the ZIP archive have more than {MAX_ARCHIVE_BYTES // 2**20} MiB unpacked"
        )
    names = [info.filename for info in files]
    if len(set(names)) < len(names):
        raise InvalidImport("the ZIP archive holds two files of one name")


def _read_json(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Any:
    with archive.open(info) as file:
        data = file.read(info.file_size + 1)
    if len(data) > info.file_size:
        raise InvalidImport(f"{info.filename[:80]!r} in the ZIP archive is larger than it says")
    return parse_json(data, info.filename)


def parse_json(data: bytes, name: str) -> Any:
    """JSON that holds no NaN, no Infinity and no key twice. Raises InvalidImport."""
    try:
        return json.loads(data, parse_constant=_reject_constant, object_pairs_hook=_reject_duplicate_keys)
    except RecursionError as error:
        raise InvalidImport(f"{name[:80]} is nested too deeply") from error
    except ValueError as error:  # not UTF-8 either
        raise InvalidImport(
            f"{name[:80]} is no JSON: it has to be UTF-8, without NaN, Infinity or a key twice"
        ) from error


def _reject_constant(constant: str) -> Any:
    raise ValueError(constant)


def _reject_duplicate_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key is there twice")
    return found
