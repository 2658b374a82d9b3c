"""What small files and the heads of large ones say: JSON objects, and which tensors a safetensors file holds.

Files may be hostile: nothing is read that is longer than it has a right to be. What was read is remembered for as long
as the file stays as it is. Knows neither torch nor the safetensors library.

Is what lies in a folder all there, and what it should be? Told from names, sizes and headers.

What a model's or an SAE's folder must hold, seen from file names and headers alone: before anything heavy starts.

What a model's configuration and its weights' headers say of it: for a list, without loading anything.

Is a file what the hub says it is? huggingface_hub compares lengths only, and flushes nothing to the disk.
"""

import hashlib
import json
import math
import os
import struct
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import msgspec

from millm.errors import InvalidModel, InvalidSae
from millm.hub import config_policy
from millm.hub.config_policy import needs_remote_code
from millm.hub.entries import IntegrityState
from millm.hub.home import File, files_below
from millm.sae.headers import read_npz_headers
from millm.text.model_folder import is_generative_config

DTYPE_BITS = {
    "F64": 64, "I64": 64, "U64": 64, "C64": 64, "F32": 32, "I32": 32, "U32": 32, "BF16": 16, "F16": 16, "I16": 16,
    "U16": 16, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8, "I8": 8, "U8": 8,
    "BOOL": 8, "F6_E2M3": 6, "F6_E3M2": 6, "F4": 4,
}  # fmt: skip
"""Of one number of each of safetensors' types."""
FLOAT_DTYPES = {"F64": "float64", "F32": "float32", "BF16": "bfloat16", "F16": "float16"}
_MAX_JSON_BYTES = 64 << 20
"""Bytes; an index of a very large model has some 20 MB, a tokenizer up to 40."""
_MAX_HEADER_BYTES = 100_000_000
"""safetensors' own limit."""


@dataclass(frozen=True)
class TensorHeader:
    name: str
    dtype: str
    """safetensors' name: `BF16`."""
    shape: tuple[int, ...]

    @property
    def numel(self) -> int:
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        return (self.numel * DTYPE_BITS[self.dtype] + 7) // 8


class _SafetensorsEntry(msgspec.Struct, frozen=True):
    dtype: str
    shape: tuple[int, ...]
    data_offsets: tuple[int, int]


def read_json_object(file: File) -> dict[str, Any]:
    """Raises InvalidModel when it is not an object, or longer than any is."""
    return _cached_json_object(file.real_path, file.path, file.modified_ns, file.size or 0)


def read_tensor_headers(file: File) -> tuple[TensorHeader, ...]:
    """Raises InvalidModel when the file is cut short or damaged."""
    return _cached_tensor_headers(file.real_path, file.path, file.modified_ns, file.size or 0)


@lru_cache(maxsize=4096)
def _cached_json_object(path: Path, name: str, _modified: int, size: int) -> dict[str, Any]:
    if size > _MAX_JSON_BYTES:
        raise InvalidModel(f"{name} has {size:,} bytes; nothing of its kind has more than {_MAX_JSON_BYTES:,}")
    try:
        found = json.loads(path.read_bytes())  # Python's own: configurations hold `Infinity`
    except OSError as error:
        raise InvalidModel(f"{name} cannot be read ({error.strerror})") from error
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise InvalidModel(f"{name} is not a JSON object; download it again")
    return found


@lru_cache(maxsize=4096)
def _cached_tensor_headers(path: Path, name: str, _modified: int, size: int) -> tuple[TensorHeader, ...]:
    try:
        length, entries = _read_header(path, size)
    except OSError as error:
        raise InvalidModel(f"{name} cannot be read ({error.strerror})") from error
    except (ValueError, RecursionError, struct.error, msgspec.DecodeError) as error:
        raise InvalidModel(f"{name} is cut short or damaged ({_error_reason(error)}); download it again") from error
    end = 8 + length + max((entry.data_offsets[1] for entry in entries.values()), default=0)
    if end != size:
        raise InvalidModel(
            f"{name} is cut short or damaged (it has {size:,} bytes and should have {end:,}); download it again"
        )
    return tuple(TensorHeader(tensor, entry.dtype, entry.shape) for tensor, entry in entries.items())


def _read_header(path: Path, size: int) -> tuple[int, dict[str, _SafetensorsEntry]]:
    """Its length in bytes, and what it says of each tensor. Raises ValueError where that cannot be."""
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        if length > min(size - 8, _MAX_HEADER_BYTES):
            raise ValueError("its header is longer than the file")
        raw = msgspec.json.decode(file.read(length), type=dict[str, msgspec.Raw])
    raw.pop("__metadata__", None)
    entries = {name: msgspec.json.decode(entry, type=_SafetensorsEntry) for name, entry in raw.items()}
    for entry in entries.values():
        _check_entry(entry)
    return length, entries


def _error_reason(error: Exception) -> str:
    return str(error) if type(error) is ValueError else "its header cannot be read"


def _check_entry(entry: _SafetensorsEntry) -> None:
    begin, end = entry.data_offsets
    bits = DTYPE_BITS.get(entry.dtype)
    if bits is None or begin < 0 or min(entry.shape, default=0) < 0:
        raise ValueError("a tensor of no known type, or of a negative size")
    if (math.prod(entry.shape) * bits + 7) // 8 != end - begin:
        raise ValueError("a tensor's size is not that of its shape")


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
            found[name] for name in config_policy.shard_names(read_json_object(index), WEIGHTS_INDEX) if name in found
        ]
    return list(found.values())


def check_model_files(files: Mapping[str, File]) -> IntegrityResult:
    """Of a folder that has, or should have, a config.json."""
    if "config.json" not in files:
        return IntegrityResult("incomplete", "config.json is missing")
    if absent := _dangling_link(files) or _missing_shard(files):
        return IntegrityResult("incomplete", f"{absent} is missing")
    try:
        read_json_object(files["config.json"])
        weights = weight_files(files)
        for file in weights:
            read_tensor_headers(file)
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
                read_tensor_headers(file)
            elif name.endswith(".npz"):
                read_npz_headers(file.real_path, name)
            elif name in ("cfg.json", "config.json"):
                read_json_object(file)
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
                for name in config_policy.shard_names(read_json_object(files[WEIGHTS_INDEX]), WEIGHTS_INDEX)
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


SCREENED_CONFIGS = ("config.json", "generation_config.json")
"""What transformers takes settings from."""


def check_model_folder(folder: Path, *, is_trusted: bool = False) -> None:
    """Raises InvalidModel naming the file that is missing, cut short or hostile, or RemoteCodeRefused.

    `is_trusted`: the operator lets this commit's own Python run.
    """
    files = _list_files(folder)
    if "config.json" not in files:
        raise InvalidModel(f"{folder.name} has no config.json: it is not a folder of a Hugging Face model")
    if "adapter_config.json" in files:
        raise InvalidModel(f"{folder.name} has an adapter (adapter_config.json); merge it into its model first")
    for name in SCREENED_CONFIGS:
        if name in files:
            config_policy.screen_config(read_json_object(files[name]), name, is_trusted=is_trusted)
    condition = check_model_files(files)
    if condition.problem:
        raise InvalidModel(f"{folder.name}: {condition.problem}".replace(": it has", " has"))


def check_sae_folder(folder: Path) -> None:
    """Raises InvalidSae when there are no weights; what is in them only the engine can judge."""
    if not any(path.suffix in (".safetensors", ".npz") for path in folder.iterdir()):
        raise InvalidSae(
            f"no SAE found in {folder.name}: it holds no .safetensors or .npz weights"
            " (a pickle such as .pt is not read, because it can run code: convert it)"
        )


def _list_files(folder: Path) -> dict[str, File]:
    try:
        return files_below(folder)
    except OSError as error:
        raise InvalidModel(f"{folder.name} cannot be read ({error.strerror})") from error


_CONTEXT_LENGTH_KEYS = (
    "max_position_embeddings",
    "n_positions",
    "n_ctx",
    "seq_length",
    "max_sequence_length",
    "max_seq_len",
)


@dataclass(frozen=True)
class ModelMetadata:
    architecture: str | None = None
    model_type: str | None = None
    parameters: int | None = None
    """None also for weights that are packed already."""
    dtype: str | None = None
    quantization: str | None = None
    context_length: int | None = None
    generates: bool = True
    needs_remote_code: bool = False


def read_model_metadata(files: Mapping[str, File]) -> ModelMetadata:
    """Raises InvalidModel for files that are not what they should be."""
    config = read_json_object(files["config.json"])
    tensors = [tensor for file in weight_files(files) for tensor in read_tensor_headers(file)]
    held = checkpoint_quantization(config)
    architectures = config.get("architectures")
    return ModelMetadata(
        architecture=_string_or_none(architectures[0]) if isinstance(architectures, list) and architectures else None,
        model_type=_string_or_none(config.get("model_type")),
        parameters=sum(tensor.numel for tensor in tensors) if tensors and not held else None,
        dtype=checkpoint_dtype(config, tensors),
        quantization=held,
        context_length=max_context_length(config),
        generates=is_generative_config(config),
        needs_remote_code=needs_remote_code(config),
    )


def _string_or_none(value: object) -> str | None:
    return value if isinstance(value, str) else None


def get_text_config(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The language model's own settings, in models that also see or hear."""
    inner = config.get("text_config")
    return inner if isinstance(inner, dict) else config


def first_positive_int(config: Mapping[str, Any], *keys: str) -> int | None:
    """The first of the keys that holds a whole number above 0."""
    for key in keys:
        value = config.get(key)
        if isinstance(value, int) and not isinstance(value, bool) and value > 0:
            return value
    return None


def max_context_length(config: Mapping[str, Any]) -> int | None:
    return first_positive_int(get_text_config(config), *_CONTEXT_LENGTH_KEYS)


def checkpoint_dtype(config: Mapping[str, Any], tensors: list[TensorHeader]) -> str | None:
    """What the checkpoint says of itself, else what most of its numbers are: transformers' `auto`."""
    for part in (config, get_text_config(config)):
        for key in ("dtype", "torch_dtype"):
            if (said := str(part.get(key)).removeprefix("torch.")) in FLOAT_DTYPES.values():
                return said
    counts: Counter[str] = Counter()
    for tensor in tensors:
        if tensor.dtype in FLOAT_DTYPES:
            counts[FLOAT_DTYPES[tensor.dtype]] += tensor.numel
    return counts.most_common(1)[0][0] if counts else None


def checkpoint_quantization(config: Mapping[str, Any]) -> str | None:
    """`8bit`, `4bit` or the method's own name, of weights that are quantised on the disk."""
    values = config.get("quantization_config")
    if not isinstance(values, dict) or not values:
        return None
    for bits in ("8bit", "4bit"):
        if values.get(f"load_in_{bits}"):
            return bits
    return str(values.get("quant_method", "unknown"))


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
