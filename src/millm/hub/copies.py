"""miLLM's own copies of an SAE: of another library's in a layout that is read, and the engine's memory-mapped one."""

import hashlib
import re
import shutil
from pathlib import Path

import msgspec

from millm.errors import InvalidSae
from millm.hub.convert import find_converted
from millm.hub.home import Home
from millm.hub.places import LibraryLocation
from millm.hub.sae_layout import is_native_layout, required_files
from millm.hub.tree import files_below

_SHA256 = re.compile(r"[0-9a-f]{64}")


class _CanonicalHeader(msgspec.Struct):
    sha256: str


def readable_sae_folder(location: LibraryLocation, home: Home) -> Path:
    """The SAE's folder, or that of its converted copy. Raises InvalidSae where none has been made."""
    if is_native_layout(location.layout):
        return location.folder
    copy = find_converted(location.folder, location.id, home)
    if copy is None:
        raise InvalidSae(
            f"{location.id} is in the layout of {location.layout}, which has to be converted first:"
            f" `millm pull {location.id}` does that"
        )
    return copy


def remove_sae_copies(location: LibraryLocation, home: Home) -> int:
    """→ bytes that became free."""
    if location.problem or location.layout is None:
        return 0
    copy = None if is_native_layout(location.layout) else find_converted(location.folder, location.id, home)
    weights = copy / "sae_weights.safetensors" if copy else _weights_path(location)
    freed = _remove_canonical(home.canonical_saes, _weights_hash(weights)) if weights else 0
    return freed + (_remove_folder(copy) if copy else 0)


def _remove_canonical(saes: Path, sha256: str) -> int:
    """The engine's."""
    freed = 0
    for folder in saes.iterdir() if saes.is_dir() else ():
        if _source_hash(folder) == sha256:
            freed += _remove_folder(folder)
    return freed


def _remove_folder(folder: Path) -> int:
    freed = sum(file.size or 0 for file in files_below(folder).values())
    shutil.rmtree(folder)
    return freed


def _source_hash(folder: Path) -> str | None:
    try:
        return msgspec.json.decode((folder / "config.json").read_bytes(), type=_CanonicalHeader).sha256
    except (OSError, msgspec.DecodeError):
        return None


def _weights_path(location: LibraryLocation) -> Path | None:
    file = next((location.files[name] for name in required_files(location.layout)[:1] if name in location.files), None)
    return file.real_path if file and file.size is not None else None


def _weights_hash(weights: Path) -> str:
    """The name of a large file's blob; of another cache's, counted."""
    if _SHA256.fullmatch(weights.name):
        return weights.name
    with weights.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
