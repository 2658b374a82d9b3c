"""Which other library an SAE comes from, by the names of its files alone, and which of them it takes to convert it."""

import re
from collections.abc import Collection
from dataclasses import dataclass

from millm.sae.conversion.protocol import ConversionFormat

_NATIVE_WEIGHTS = ("params.npz", "params.safetensors")
_FOLDER_LAYOUTS: tuple[tuple[ConversionFormat, tuple[str, ...]], ...] = (
    ("dictionary_learning", ("ae.pt", "config.json")),
    ("llama_scope", ("checkpoints/final.safetensors", "hyperparams.json")),
    ("sparsify", ("sae.safetensors", "cfg.json")),
    ("llama_scope_r1_distill", ("sae_weights.safetensors", "config.json")),
)
"""A folder with these files in it, the weights first; SAELens' own layout has been ruled out before."""
_FILE_LAYOUTS: tuple[tuple[ConversionFormat, re.Pattern[str]], ...] = (
    ("qwen_scope", re.compile(r"layer\d+\.sae\.pt")),
    ("mwhanna", re.compile(r"layer_\d+\.safetensors")),
    ("torch_linear", re.compile(r"[^/]+-l\d+\.pth?")),
)
"""A file that is an SAE by itself."""


@dataclass(frozen=True)
class ForeignSaeFiles:
    """An SAE that has to be converted."""

    format: ConversionFormat
    files: tuple[str, ...]
    """Where they are in what was looked at, the weights first."""


def detect_foreign_sae(path: str, files: Collection[str]) -> ForeignSaeFiles | None:
    """The SAE at `path` (a folder, a file, or empty for the root) of a repository or folder that holds `files`.

    None for one that is read as it is, and for what is no SAE that we know.
    """
    if path in files:
        return _detect_file(path, files)
    folder = f"{path}/" if path else ""
    inside = {name.removeprefix(folder) for name in files if name.startswith(folder)}
    if {"cfg.json", "sae_weights.safetensors"} <= inside or not inside.isdisjoint(_NATIVE_WEIGHTS):
        return None
    for format, needed in _FOLDER_LAYOUTS:
        if inside.issuperset(needed):
            return ForeignSaeFiles(format, tuple(f"{folder}{name}" for name in needed))
    alone = [found for name in sorted(inside) if "/" not in name and (found := _detect_file(f"{folder}{name}", files))]
    return alone[0] if len(alone) == 1 else None


def _detect_file(path: str, files: Collection[str]) -> ForeignSaeFiles | None:
    name = path.rpartition("/")[2]
    configuration = f"{path.removesuffix('.pt')}_cfg.json"
    if name.endswith(".pt") and configuration in files:
        return ForeignSaeFiles("connor_rob", (path, configuration))
    format = next((format for format, pattern in _FILE_LAYOUTS if pattern.fullmatch(name)), None)
    return ForeignSaeFiles(format, (path,)) if format else None
