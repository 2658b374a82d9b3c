"""Detect the layout of an SAE's files and convert them to miLLM's canonical folder."""

from collections.abc import Callable
from pathlib import Path

from millm.errors import InvalidSae
from millm.sae.formats import canonical, gemma_scope, saelens
from millm.sae.formats.reader import SourceSae

_READERS: dict[str, Callable[[Path], SourceSae]] = {
    saelens.SAELENS_WEIGHTS: saelens.read_saelens,
    gemma_scope.GEMMA_SCOPE_WEIGHTS: gemma_scope.read_gemma_scope,
    gemma_scope.GEMMA_SCOPE_2_WEIGHTS: gemma_scope.read_gemma_scope_2,
}
_PICKLE_SUFFIXES = {".pt", ".pth", ".bin", ".pkl", ".ckpt"}


def canonicalise(source: Path, root: Path) -> Path:
    """The canonical folder under `root` for the SAE in `source`, written unless it exists.

    Raises InvalidSae, and leaves `root` unchanged, for an SAE that is not supported exactly.
    """
    return canonical.store_canonical(_read_layout(source), root)


def _read_layout(folder: Path) -> SourceSae:
    try:
        files = {path.name for path in folder.iterdir()}
    except OSError as error:
        raise InvalidSae(f"the SAE's folder {folder.name!r} cannot be read: {error.strerror}") from error
    for weights, read in _READERS.items():
        if weights in files:
            return read(folder)
    if pickled := sorted(name for name in files if Path(name).suffix in _PICKLE_SUFFIXES):
        raise InvalidSae(f"{pickled[0]} is a pickle, which can run code when it is read; convert it to safetensors")
    raise InvalidSae("no SAE found in this folder; it must hold " + " or ".join(_READERS))
