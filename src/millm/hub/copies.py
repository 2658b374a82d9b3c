"""miLLM's own copies of an SAE: of another library's in a layout that is read, and the engine's memory-mapped one."""

import hashlib
import re
import shutil
from pathlib import Path

import msgspec

from millm.errors import InvalidSae
from millm.hub.convert import converted
from millm.hub.home import Home
from millm.hub.places import Place
from millm.hub.sae_layout import is_read, needed
from millm.hub.tree import files_below

_SHA256 = re.compile(r"[0-9a-f]{64}")


class _Header(msgspec.Struct):
    sha256: str


def readable(place: Place, home: Home) -> Path:
    """The SAE's folder, or that of its converted copy. Raises InvalidSae where none has been made."""
    if is_read(place.layout):
        return place.folder
    copy = converted(place.folder, place.id, home)
    if copy is None:
        raise InvalidSae(
            f"{place.id} is in the layout of {place.layout}, which has to be converted first:"
            f" `millm pull {place.id}` does that"
        )
    return copy


def remove(place: Place, home: Home) -> int:
    """→ bytes that became free."""
    if place.problem or place.layout is None:
        return 0
    copy = None if is_read(place.layout) else converted(place.folder, place.id, home)
    weights = copy / "sae_weights.safetensors" if copy else _weights(place)
    freed = _remove_canonical(home.saes, _sha256(weights)) if weights else 0
    return freed + (_remove_folder(copy) if copy else 0)


def _remove_canonical(saes: Path, sha256: str) -> int:
    """The engine's."""
    freed = 0
    for folder in saes.iterdir() if saes.is_dir() else ():
        if _made_from(folder) == sha256:
            freed += _remove_folder(folder)
    return freed


def _remove_folder(folder: Path) -> int:
    freed = sum(file.size or 0 for file in files_below(folder).values())
    shutil.rmtree(folder)
    return freed


def _made_from(folder: Path) -> str | None:
    try:
        return msgspec.json.decode((folder / "config.json").read_bytes(), type=_Header).sha256
    except (OSError, msgspec.DecodeError):
        return None


def _weights(place: Place) -> Path | None:
    file = next((place.files[name] for name in needed(place.layout)[:1] if name in place.files), None)
    return file.where if file and file.size is not None else None


def _sha256(weights: Path) -> str:
    """The name of a large file's blob; of another cache's, counted."""
    if _SHA256.fullmatch(weights.name):
        return weights.name
    with weights.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
