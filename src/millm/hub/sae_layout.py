"""Detect an SAE's layout by file names, and read its metadata from headers: no weights and no torch.

This serves the library's lists; the engine reads SAEs by `sae/formats` when it attaches them.
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
"""Folders with these files, the weights first; SAELens' own layout has priority."""
_FILE_LAYOUTS: tuple[tuple[ConversionFormat, re.Pattern[str]], ...] = (
    ("qwen_scope", re.compile(r"layer\d+\.sae\.pt")),
    ("mwhanna", re.compile(r"layer_\d+\.safetensors")),
    ("torch_linear", re.compile(r"[^/]+-l\d+\.pth?")),
)
"""Files that are an SAE each."""


@dataclass(frozen=True)
class ForeignSaeFiles:
    """An SAE that has to be converted."""

    format: ConversionFormat
    files: tuple[str, ...]
    """Paths in the repository or folder, the weights first."""


def detect_foreign_sae(path: str, files: Collection[str]) -> ForeignSaeFiles | None:
    """The SAE at `path` (a folder, a file, or empty for the root) of a repository or folder that holds `files`.

    None for a layout that needs no conversion, and for an unknown one.
    """
    if path in files:
        return _detect_file(path, files)
    folder = f"{path}/" if path else ""
    names = {name.removeprefix(folder) for name in files if name.startswith(folder)}
    if {"cfg.json", "sae_weights.safetensors"} <= names or not names.isdisjoint(_NATIVE_WEIGHTS):
        return None
    for format, needed in _FOLDER_LAYOUTS:
        if names.issuperset(needed):
            return ForeignSaeFiles(format, tuple(f"{folder}{name}" for name in needed))
    single = [sae for name in sorted(names) if "/" not in name and (sae := _detect_file(f"{folder}{name}", files))]
    return single[0] if len(single) == 1 else None


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
"""Of layouts that need no conversion, the weights first."""
SaeLayout = tuple[str, dict[str, File]]
"""A layout and its files."""
_FOREIGN_SUFFIXES = (".pt", ".pth", ".safetensors", "hyperparams.json")
_BATCH_TOPK = ("batchtopk", "matryoshka_batchtopk")


@dataclass(frozen=True)
class SaeMetadata:
    """An SAE's metadata, as far as its files state it."""

    format: str | None
    architecture: str | None = None
    width: int | None = None
    d_in: int | None = None
    hook_point: str | None = None
    layer: int | None = None
    model: str | None = None


def detect_layout(files: Mapping[str, File]) -> str | None:
    """The layout of a folder with these files, complete or not; None unless it needs no conversion."""
    if "params.npz" in files:
        return "gemma_scope"
    if "params.safetensors" in files:
        return "gemma_scope_2"
    if "cfg.json" in files and "sae.safetensors" not in files:
        return "saelens"
    return "saelens" if "sae_weights.safetensors" in files and "config.json" not in files else None


def find_saes(files: Mapping[str, File]) -> dict[str, SaeLayout]:
    """Paths of SAEs in a repository (a folder, or a file that is one by itself) → layout and files."""
    saes: dict[str, SaeLayout] = {}
    for folder, own in group_by_folder(files).items():
        if layout := detect_layout(own):
            saes[folder] = (layout, own)
        elif any(name.endswith(_FOREIGN_SUFFIXES) for name in own):
            saes |= _find_foreign_saes(folder, own, files)
    return saes


def group_by_folder(files: Mapping[str, File]) -> dict[str, dict[str, File]]:
    """Folder → its own files, by name."""
    folders: dict[str, dict[str, File]] = {}
    for path, file in files.items():
        folder, _, name = path.rpartition("/")
        folders.setdefault(folder, {})[name] = file
    return folders


def _find_foreign_saes(folder: str, own: Mapping[str, File], files: Mapping[str, File]) -> dict[str, SaeLayout]:
    """SAEs that have to be converted: files that are one each, else the folder."""
    prefix = f"{folder}/" if folder else ""
    paths = [path for name in own if detect_foreign_sae(path := f"{prefix}{name}", files)] or [folder]
    known = {path: sae for path in paths if (sae := detect_foreign_sae(path, files))}
    return {
        path: (sae.format, {part.removeprefix(f"{path}/"): files[part] for part in sae.files})
        for path, sae in known.items()
    }


def is_native_layout(layout: str | None) -> bool:
    """True where no conversion is needed."""
    return layout in _REQUIRED_FILES


def required_files(layout: str | None) -> tuple[str, ...]:
    """The files that a complete SAE of this layout has."""
    return _REQUIRED_FILES.get(layout or "", ())


def read_sae_metadata(layout: str | None, files: Mapping[str, File], path: str) -> SaeMetadata:
    """`path` includes the repository's name, which states what some files do not.

    Raises InvalidModel or InvalidSae for files without metadata.
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
    config = {**raw, **(nested if isinstance(nested, dict) else {})}
    is_export = "mistudio_training_id" in raw
    hook = None if is_export else _string_field(config, "hook_name") or _string_field(config, "hook_point")
    return SaeMetadata(
        format="mistudio" if is_export else "saelens",
        architecture=_architecture(raw),
        width=_int_field(config, "d_sae"),
        d_in=_int_field(config, "d_in"),
        hook_point=hook,
        layer=layer_of(hook, _string_field(config, "hf_hook_name")) if hook else _mistudio_layer(config, path),
        model=_string_field(config, "model_name"),
    )


def _gemma_scope_metadata(files: Mapping[str, File], path: str) -> SaeMetadata:
    facts = parse_gemma_scope_path(path)
    arrays = read_npz_headers(files["params.npz"].real_path, "params.npz")
    encoder = arrays.get("W_enc") or arrays.get("w_enc")
    d_in, width = encoder.shape if encoder and len(encoder.shape) == 2 else (None, None)
    return SaeMetadata(
        format="gemma_scope",
        architecture="jumprelu_transcoder" if facts.is_transcoder else "jumprelu",
        width=width,
        d_in=d_in,
        hook_point=facts.hook_name,
        layer=layer_of(facts.hook_name),
        model=facts.model_name,
    )


def _gemma_scope_2_metadata(files: Mapping[str, File], _path: str) -> SaeMetadata:
    config = checkpoint.read_json_object(files["config.json"]) if "config.json" in files else {}
    shapes = {
        tensor.name.lower(): tensor.shape for tensor in checkpoint.read_tensor_headers(files["params.safetensors"])
    }
    d_in, width = shapes.get("w_enc", (None, None))
    hook = _string_field(config, "hf_hook_point_in")
    return SaeMetadata(
        format="gemma_scope_2",
        architecture="jumprelu_transcoder" if _string_field(config, "hf_hook_point_out") else "jumprelu",
        width=width,
        d_in=d_in,
        hook_point=hook,
        layer=layer_of(hook),
        model=_string_field(config, "model_name"),
    )


def _architecture(raw: Mapping[str, Any]) -> str:
    name = _string_field(raw, "architecture") or "standard"
    if name == "standard" and "topk" in (raw.get("activation_fn"), raw.get("activation_fn_str")):
        return "topk"
    return "jumprelu" if name in _BATCH_TOPK else name


def _mistudio_layer(config: Mapping[str, Any], path: str) -> int | None:
    """miStudio's folder names state the layer first."""
    folder = path.rpartition("/")[2].removeprefix("layer_").split("_")[0]
    return int(folder) if folder.isdigit() else _int_field(config, "hook_point_layer")


def _string_field(config: Mapping[str, Any], key: str) -> str | None:
    value = config.get(key)
    return value if isinstance(value, str) else None


def _int_field(config: Mapping[str, Any], key: str) -> int | None:
    value = config.get(key)
    return value if isinstance(value, int) and not isinstance(value, bool) else None
