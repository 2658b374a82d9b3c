"""How an SAE's publisher laid out its folder, and what its files say of it: names and headers, no weights and no torch.

The engine reads it exactly when it is attached (`sae/formats`); this is for a list.

Which other library an SAE comes from, by the names of its files alone, and which of them it takes to convert it.
"""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from millm.hub import checkpoint
from millm.hub.home import File
from millm.sae.config import layer_of
from millm.sae.conversion.protocol import ConversionFormat
from millm.sae.headers import parse_gemma_scope_path, read_npz_headers

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


_REQUIRED_FILES = {
    "saelens": ("sae_weights.safetensors", "cfg.json"),
    "gemma_scope": ("params.npz",),
    "gemma_scope_2": ("params.safetensors",),
}
"""Of those that are read as they are; the weights first."""
SaeLayout = tuple[str, dict[str, File]]
"""A layout, and the files that are in it."""
_FOREIGN_SUFFIXES = (".pt", ".pth", ".safetensors", "hyperparams.json")
"""Ends of names that other libraries' SAEs have."""
_BATCH_TOPK = ("batchtopk", "matryoshka_batchtopk")


@dataclass(frozen=True)
class SaeMetadata:
    """What an SAE's files say of it."""

    format: str | None
    architecture: str | None = None
    width: int | None = None
    d_in: int | None = None
    hook_point: str | None = None
    layer: int | None = None
    model: str | None = None


def detect_layout(files: Mapping[str, File]) -> str | None:
    """Of a folder with these files right in it, all of them or not yet; None: it holds no SAE that is read as it is."""
    if "params.npz" in files:
        return "gemma_scope"
    if "params.safetensors" in files:
        return "gemma_scope_2"
    if "cfg.json" in files and "sae.safetensors" not in files:
        return "saelens"
    return "saelens" if "sae_weights.safetensors" in files and "config.json" not in files else None


def find_saes(files: Mapping[str, File]) -> dict[str, SaeLayout]:
    """Where in a repository SAEs are (a folder, or a file that is one by itself) → their layout and their files."""
    found: dict[str, SaeLayout] = {}
    for folder, own in group_by_folder(files).items():
        if layout := detect_layout(own):
            found[folder] = (layout, own)
        elif any(name.endswith(_FOREIGN_SUFFIXES) for name in own):
            found |= _find_foreign_saes(folder, own, files)
    return found


def group_by_folder(files: Mapping[str, File]) -> dict[str, dict[str, File]]:
    """Folder → the files right in it, by name."""
    found: dict[str, dict[str, File]] = {}
    for path, file in files.items():
        folder, _, name = path.rpartition("/")
        found.setdefault(folder, {})[name] = file
    return found


def _find_foreign_saes(folder: str, own: Mapping[str, File], files: Mapping[str, File]) -> dict[str, SaeLayout]:
    """Of other libraries: its files that are one each, else the folder as a whole."""
    prefix = f"{folder}/" if folder else ""
    paths = [path for name in own if detect_foreign_sae(path := f"{prefix}{name}", files)] or [folder]
    known = {path: recognised for path in paths if (recognised := detect_foreign_sae(path, files))}
    return {
        path: (found.format, {part.removeprefix(f"{path}/"): files[part] for part in found.files})
        for path, found in known.items()
    }


def is_native_layout(layout: str | None) -> bool:
    """As it is, without a conversion."""
    return layout in _REQUIRED_FILES


def required_files(layout: str | None) -> tuple[str, ...]:
    """The files without which such an SAE is not whole."""
    return _REQUIRED_FILES.get(layout or "", ())


def read_sae_metadata(layout: str | None, files: Mapping[str, File], path: str) -> SaeMetadata:
    """`path`: with the repository's name in it, which says what some files do not.

    Raises InvalidModel or InvalidSae for files that say nothing.
    """
    readers = {
        "saelens": _saelens_metadata,
        "gemma_scope": _gemma_scope_metadata,
        "gemma_scope_2": _gemma_scope_2_metadata,
    }
    return readers[layout](files, path) if layout in readers else SaeMetadata(layout)


def _saelens_metadata(files: Mapping[str, File], path: str) -> SaeMetadata:
    raw = checkpoint.read_json_object(files["cfg.json"]) if "cfg.json" in files else {}
    nested = raw.get("metadata")
    said = {**raw, **(nested if isinstance(nested, dict) else {})}
    is_export = "mistudio_training_id" in raw
    hook = None if is_export else _string_field(said, "hook_name") or _string_field(said, "hook_point")
    return SaeMetadata(
        format="mistudio" if is_export else "saelens",
        architecture=_architecture(raw),
        width=_int_field(said, "d_sae"),
        d_in=_int_field(said, "d_in"),
        hook_point=hook,
        layer=layer_of(hook, _string_field(said, "hf_hook_name")) if hook else _mistudio_layer(said, path),
        model=_string_field(said, "model_name"),
    )


def _gemma_scope_metadata(files: Mapping[str, File], path: str) -> SaeMetadata:
    place = parse_gemma_scope_path(path)
    arrays = read_npz_headers(files["params.npz"].real_path, "params.npz")
    encoder = arrays.get("W_enc") or arrays.get("w_enc")
    d_in, width = encoder.shape if encoder and len(encoder.shape) == 2 else (None, None)
    return SaeMetadata(
        format="gemma_scope",
        architecture="jumprelu_transcoder" if place.is_transcoder else "jumprelu",
        width=width,
        d_in=d_in,
        hook_point=place.hook_name,
        layer=layer_of(place.hook_name),
        model=place.model_name,
    )


def _gemma_scope_2_metadata(files: Mapping[str, File], _path: str) -> SaeMetadata:
    said = checkpoint.read_json_object(files["config.json"]) if "config.json" in files else {}
    shapes = {
        tensor.name.lower(): tensor.shape for tensor in checkpoint.read_tensor_headers(files["params.safetensors"])
    }
    d_in, width = shapes.get("w_enc", (None, None))
    hook = _string_field(said, "hf_hook_point_in")
    return SaeMetadata(
        format="gemma_scope_2",
        architecture="jumprelu_transcoder" if _string_field(said, "hf_hook_point_out") else "jumprelu",
        width=width,
        d_in=d_in,
        hook_point=hook,
        layer=layer_of(hook),
        model=_string_field(said, "model_name"),
    )


def _architecture(raw: Mapping[str, Any]) -> str:
    name = _string_field(raw, "architecture") or "standard"
    if name == "standard" and "topk" in (raw.get("activation_fn"), raw.get("activation_fn_str")):
        return "topk"
    return "jumprelu" if name in _BATCH_TOPK else name


def _mistudio_layer(config: Mapping[str, Any], path: str) -> int | None:
    """miStudio's exports say it by their folder's name first."""
    folder = path.rpartition("/")[2].removeprefix("layer_").split("_")[0]
    return int(folder) if folder.isdigit() else _int_field(config, "hook_point_layer")


def _string_field(config: Mapping[str, Any], key: str) -> str | None:
    value = config.get(key)
    return value if isinstance(value, str) else None


def _int_field(config: Mapping[str, Any], key: str) -> int | None:
    value = config.get(key)
    return value if isinstance(value, int) and not isinstance(value, bool) else None
