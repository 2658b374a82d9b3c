"""Is what lies in a folder all there, and what it should be? Told from names, sizes and headers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from millm.errors import InvalidModel, InvalidSae
from millm.hub import headers, screen
from millm.hub.entries import Whole
from millm.hub.tree import File
from millm.sae.npz import npz_shapes

INDEX = "model.safetensors.index.json"
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".h5", ".msgpack")


@dataclass(frozen=True)
class Condition:
    state: Whole = "whole"
    problem: str | None = None


WHOLE = Condition()


def weights_of(files: Mapping[str, File]) -> list[File]:
    """The safetensors beside config.json that the model is loaded from. Raises InvalidModel for a hostile index."""
    found = {name: file for name, file in files.items() if "/" not in name and name.endswith(".safetensors")}
    if "model.safetensors" in found:
        return [found["model.safetensors"]]
    if index := files.get(INDEX):
        return [found[name] for name in screen.shards(headers.json_object(index), INDEX) if name in found]
    return list(found.values())


def model_condition(files: Mapping[str, File]) -> Condition:
    """Of a folder that has, or should have, a config.json."""
    if "config.json" not in files:
        return Condition("incomplete", "config.json is missing")
    if absent := _absent(files) or _absent_shard(files):
        return Condition("incomplete", f"{absent} is missing")
    try:
        headers.json_object(files["config.json"])
        weights = weights_of(files)
        for file in weights:
            headers.tensors(file)
    except InvalidModel as error:
        return Condition("damaged", error.message)
    return WHOLE if weights else _without_weights(files)


def sae_condition(files: Mapping[str, File], needed: Sequence[str]) -> Condition:
    """`needed`: names of the files that such a layout has."""
    if absent := _absent(files) or next((name for name in needed if name not in files), None):
        return Condition("incomplete", f"{absent} is missing")
    try:
        for name, file in files.items():
            if name.endswith(".safetensors"):
                headers.tensors(file)
            elif name.endswith(".npz"):
                npz_shapes(file.where, name)
            elif name in ("cfg.json", "config.json"):
                headers.json_object(file)
    except (InvalidModel, InvalidSae) as error:
        return Condition("damaged", error.message)
    return WHOLE


def against_installed(files: Mapping[str, File], sizes: Mapping[str, int]) -> Condition:
    """Compared with what was on the disk when the download was verified."""
    for name, size in sizes.items():
        file = files.get(name)
        if file is None or file.size is None:
            return Condition("incomplete", f"{name} is missing")
        if file.size != size:
            return Condition("damaged", f"{name} has {file.size:,} bytes and was installed with {size:,}")
    return WHOLE


def _absent(files: Mapping[str, File]) -> str | None:
    """A link to nothing: the first of what a download has announced and not brought."""
    return next((name for name, file in files.items() if file.size is None), None)


def _absent_shard(files: Mapping[str, File]) -> str | None:
    if INDEX not in files or "model.safetensors" in files:
        return None
    try:
        return next(
            (name for name in screen.shards(headers.json_object(files[INDEX]), INDEX) if name not in files), None
        )
    except InvalidModel:
        return None  # told as damaged


def _without_weights(files: Mapping[str, File]) -> Condition:
    if any("/" not in name and name.endswith(_PICKLES) for name in files):
        return Condition("incomplete", "it has only pickled weights, which can run code when read; convert them")
    return Condition("incomplete", "it has no .safetensors weights, the only kind that cannot run code when read")
