"""Is what lies in a folder all there, and what it should be? Told from names, sizes and headers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from millm.errors import InvalidModel, InvalidSae
from millm.hub import headers, screen
from millm.hub.entries import IntegrityState
from millm.hub.tree import File
from millm.sae.headers import read_npz_headers

WEIGHTS_INDEX = "model.safetensors.index.json"
_PICKLE_SUFFIXES = (".bin", ".pt", ".pth", ".ckpt", ".h5", ".msgpack")


@dataclass(frozen=True)
class IntegrityResult:
    state: IntegrityState = "whole"
    problem: str | None = None


INTACT = IntegrityResult()


def weight_files(files: Mapping[str, File]) -> list[File]:
    """The safetensors beside config.json that the model is loaded from. Raises InvalidModel for a hostile index."""
    found = {name: file for name, file in files.items() if "/" not in name and name.endswith(".safetensors")}
    if "model.safetensors" in found:
        return [found["model.safetensors"]]
    if index := files.get(WEIGHTS_INDEX):
        return [
            found[name] for name in screen.shard_names(headers.read_json_object(index), WEIGHTS_INDEX) if name in found
        ]
    return list(found.values())


def check_model_files(files: Mapping[str, File]) -> IntegrityResult:
    """Of a folder that has, or should have, a config.json."""
    if "config.json" not in files:
        return IntegrityResult("incomplete", "config.json is missing")
    if absent := _dangling_link(files) or _missing_shard(files):
        return IntegrityResult("incomplete", f"{absent} is missing")
    try:
        headers.read_json_object(files["config.json"])
        weights = weight_files(files)
        for file in weights:
            headers.read_tensor_headers(file)
    except InvalidModel as error:
        return IntegrityResult("damaged", error.message)
    return INTACT if weights else _missing_weights(files)


def check_sae_files(files: Mapping[str, File], required: Sequence[str]) -> IntegrityResult:
    """`needed`: names of the files that such a layout has."""
    if absent := _dangling_link(files) or next((name for name in required if name not in files), None):
        return IntegrityResult("incomplete", f"{absent} is missing")
    try:
        for name, file in files.items():
            if name.endswith(".safetensors"):
                headers.read_tensor_headers(file)
            elif name.endswith(".npz"):
                read_npz_headers(file.real_path, name)
            elif name in ("cfg.json", "config.json"):
                headers.read_json_object(file)
    except (InvalidModel, InvalidSae) as error:
        return IntegrityResult("damaged", error.message)
    return INTACT


def check_installed_sizes(files: Mapping[str, File], sizes: Mapping[str, int]) -> IntegrityResult:
    """Compared with what was on the disk when the download was verified."""
    for name, size in sizes.items():
        file = files.get(name)
        if file is None or file.size is None:
            return IntegrityResult("incomplete", f"{name} is missing")
        if file.size != size:
            return IntegrityResult("damaged", f"{name} has {file.size:,} bytes and was installed with {size:,}")
    return INTACT


def _dangling_link(files: Mapping[str, File]) -> str | None:
    """A link to nothing: the first of what a download has announced and not brought."""
    return next((name for name, file in files.items() if file.size is None), None)


def _missing_shard(files: Mapping[str, File]) -> str | None:
    if WEIGHTS_INDEX not in files or "model.safetensors" in files:
        return None
    try:
        return next(
            (
                name
                for name in screen.shard_names(headers.read_json_object(files[WEIGHTS_INDEX]), WEIGHTS_INDEX)
                if name not in files
            ),
            None,
        )
    except InvalidModel:
        return None  # told as damaged


def _missing_weights(files: Mapping[str, File]) -> IntegrityResult:
    if any("/" not in name and name.endswith(_PICKLE_SUFFIXES) for name in files):
        return IntegrityResult("incomplete", "it has only pickled weights, which can run code when read; convert them")
    return IntegrityResult("incomplete", "it has no .safetensors weights, the only kind that cannot run code when read")
