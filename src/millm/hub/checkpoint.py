"""Read a checkpoint's small files and headers: tensor shapes, integrity and model metadata, before anything is loaded.

Files may be hostile, so no read exceeds a plausible size. Results are cached while a file is unchanged. The safetensors
library is not used: its readers map the file, so that one that shrinks meanwhile would kill the server by SIGBUS.
"""

import json
import math
import struct
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import msgspec

from millm.errors import InvalidModel, InvalidSae
from millm.hub.config_policy import needs_remote_code, screen_config, shard_names
from millm.hub.entries import IntegrityState
from millm.hub.home import File, files_below
from millm.sae.headers import read_npz_headers
from millm.text.model_folder import is_generative_config

DTYPE_BITS = {
    "F64": 64, "I64": 64, "U64": 64, "C64": 64, "F32": 32, "I32": 32, "U32": 32, "BF16": 16, "F16": 16, "I16": 16,
    "U16": 16, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8, "I8": 8, "U8": 8,
    "BOOL": 8, "F6_E2M3": 6, "F6_E3M2": 6, "F4": 4,
}  # fmt: skip
"""Bits of one number, by safetensors type."""
FLOAT_DTYPES = {"F64": "float64", "F32": "float32", "BF16": "bfloat16", "F16": "float16"}
_MAX_JSON_BYTES = 64 << 20
"""The index of a very large model has about 20 MB, a tokenizer up to 40."""
_MAX_HEADER_BYTES = 100_000_000
"""safetensors' own limit."""


@dataclass(frozen=True)
class TensorHeader:
    name: str
    dtype: str
    """safetensors' name, such as `BF16`."""
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


@lru_cache(maxsize=4096)
def read_json_object(file: File) -> dict[str, Any]:
    """Raises InvalidModel when the file is no JSON object, or too long for one."""
    if file.size and file.size > _MAX_JSON_BYTES:
        raise InvalidModel(f"{file.path} has {file.size:,} bytes; at most {_MAX_JSON_BYTES:,} are read")
    try:
        content = json.loads(file.real_path.read_bytes())  # Python's own: configurations hold `Infinity`
    except OSError as error:
        raise InvalidModel(f"{file.path} cannot be read ({error.strerror})") from error
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, dict):
        raise InvalidModel(f"{file.path} is not a JSON object; download it again")
    return content


@lru_cache(maxsize=4096)
def read_tensor_headers(file: File) -> tuple[TensorHeader, ...]:
    """Raises InvalidModel when the file is cut short or damaged."""
    name, size = file.path, file.size or 0
    try:
        length, entries = _read_header(file.real_path, size)
    except OSError as error:
        raise InvalidModel(f"{name} cannot be read ({error.strerror})") from error
    except (ValueError, RecursionError, struct.error, msgspec.DecodeError) as error:
        reason = str(error) if type(error) is ValueError else "its header cannot be read"
        raise InvalidModel(f"{name} is cut short or damaged ({reason}); download it again") from error
    end = 8 + length + max((entry.data_offsets[1] for entry in entries.values()), default=0)
    if end != size:
        raise InvalidModel(
            f"{name} is cut short or damaged (it has {size:,} bytes and should have {end:,}); download it again"
        )
    return tuple(TensorHeader(tensor, entry.dtype, entry.shape) for tensor, entry in entries.items())


def _read_header(path: Path, size: int) -> tuple[int, dict[str, _SafetensorsEntry]]:
    """(header length in bytes, entries by tensor name). Raises ValueError for impossible values."""
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
    """The safetensors beside config.json that loading reads. Raises InvalidModel for a hostile index."""
    weights = {name: file for name, file in files.items() if "/" not in name and name.endswith(".safetensors")}
    if "model.safetensors" in weights:
        return [weights["model.safetensors"]]
    if WEIGHTS_INDEX in files:
        return [weights[name] for name in _indexed_shards(files) if name in weights]
    return list(weights.values())


def _indexed_shards(files: Mapping[str, File]) -> tuple[str, ...]:
    return shard_names(read_json_object(files[WEIGHTS_INDEX]), WEIGHTS_INDEX)


def check_model_files(files: Mapping[str, File]) -> IntegrityResult:
    """The integrity of a model's folder."""
    if "config.json" not in files:
        return IntegrityResult("incomplete", "config.json is missing")
    if missing := _dangling_link(files) or _missing_shard(files):
        return IntegrityResult("incomplete", f"{missing} is missing")
    try:
        read_json_object(files["config.json"])
        weights = weight_files(files)
        for file in weights:
            read_tensor_headers(file)
    except InvalidModel as error:
        return IntegrityResult("damaged", error.message)
    return INTACT if weights else _missing_weights(files)


def check_sae_files(files: Mapping[str, File], required: Sequence[str]) -> IntegrityResult:
    """`required`: the files of the SAE's layout."""
    if missing := _dangling_link(files) or next((name for name in required if name not in files), None):
        return IntegrityResult("incomplete", f"{missing} is missing")
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
    """Compare with the sizes of the verified download."""
    for name, size in sizes.items():
        file = files.get(name)
        if file is None or file.size is None:
            return IntegrityResult("incomplete", f"{name} is missing")
        if file.size != size:
            return IntegrityResult("damaged", f"{name} has {file.size:,} bytes and was installed with {size:,}")
    return INTACT


def _dangling_link(files: Mapping[str, File]) -> str | None:
    """The first file that a download has announced and not delivered."""
    return next((name for name, file in files.items() if file.size is None), None)


def _missing_shard(files: Mapping[str, File]) -> str | None:
    if WEIGHTS_INDEX not in files or "model.safetensors" in files:
        return None
    try:
        return next((name for name in _indexed_shards(files) if name not in files), None)
    except InvalidModel:
        return None  # reported as damaged


def _missing_weights(files: Mapping[str, File]) -> IntegrityResult:
    if any("/" not in name and name.endswith(_PICKLE_SUFFIXES) for name in files):
        return IntegrityResult("incomplete", "it has only pickled weights, which can run code when read; convert them")
    return IntegrityResult("incomplete", "it has no .safetensors weights, the only kind that cannot run code when read")


SCREENED_CONFIGS = ("config.json", "generation_config.json")
"""The files that transformers reads settings from."""


def check_model_folder(folder: Path, *, is_trusted: bool = False) -> None:
    """Raises InvalidModel naming the file that is missing, cut short or hostile, or RemoteCodeRefused.

    `is_trusted`: the operator allows this commit's own Python.
    """
    try:
        files = files_below(folder)
    except OSError as error:
        raise InvalidModel(f"{folder.name} cannot be read ({error.strerror})") from error
    if "config.json" not in files:
        raise InvalidModel(f"{folder.name} has no config.json: it is not a folder of a Hugging Face model")
    if "adapter_config.json" in files:
        raise InvalidModel(f"{folder.name} has an adapter (adapter_config.json); merge it into its model first")
    for name in SCREENED_CONFIGS:
        if name in files:
            screen_config(read_json_object(files[name]), name, is_trusted=is_trusted)
    integrity = check_model_files(files)
    if integrity.problem:
        raise InvalidModel(f"{folder.name}: {integrity.problem}".replace(": it has", " has"))


def check_sae_folder(folder: Path) -> None:
    """Raises InvalidSae for a folder without weights; the engine checks their contents."""
    if not any(path.suffix in (".safetensors", ".npz") for path in folder.iterdir()):
        raise InvalidSae(
            f"no SAE found in {folder.name}: it holds no .safetensors or .npz weights"
            " (a pickle such as .pt is not read, because it can run code: convert it)"
        )


_CONTEXT_LENGTH_KEYS = (
    "max_position_embeddings", "n_positions", "n_ctx", "seq_length", "max_sequence_length", "max_seq_len",
)  # fmt: skip


@dataclass(frozen=True)
class ModelMetadata:
    architecture: str | None = None
    model_type: str | None = None
    parameters: int | None = None
    """None also for quantised weights."""
    dtype: str | None = None
    quantization: str | None = None
    context_length: int | None = None
    generates: bool = True
    needs_remote_code: bool = False


def read_model_metadata(files: Mapping[str, File]) -> ModelMetadata:
    """Raises InvalidModel for damaged files."""
    config = read_json_object(files["config.json"])
    tensors = [tensor for file in weight_files(files) for tensor in read_tensor_headers(file)]
    quantization = checkpoint_quantization(config)
    architectures = config.get("architectures")
    return ModelMetadata(
        architecture=_string_or_none(architectures[0]) if isinstance(architectures, list) and architectures else None,
        model_type=_string_or_none(config.get("model_type")),
        parameters=sum(tensor.numel for tensor in tensors) if tensors and not quantization else None,
        dtype=checkpoint_dtype(config, tensors),
        quantization=quantization,
        context_length=max_context_length(config),
        generates=is_generative_config(config),
        needs_remote_code=needs_remote_code(config),
    )


def _string_or_none(value: object) -> str | None:
    return value if isinstance(value, str) else None


def get_text_config(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The language model's own settings, in models with vision or audio."""
    inner = config.get("text_config")
    return inner if isinstance(inner, dict) else config


def first_positive_int(config: Mapping[str, Any], *keys: str) -> int | None:
    """The value of the first key that holds a positive integer."""
    for key in keys:
        value = config.get(key)
        if isinstance(value, int) and not isinstance(value, bool) and value > 0:
            return value
    return None


def max_context_length(config: Mapping[str, Any]) -> int | None:
    return first_positive_int(get_text_config(config), *_CONTEXT_LENGTH_KEYS)


def checkpoint_dtype(config: Mapping[str, Any], tensors: list[TensorHeader]) -> str | None:
    """The configured dtype, else that of most numbers, as transformers' `auto`."""
    for part in (config, get_text_config(config)):
        for key in ("dtype", "torch_dtype"):
            if (dtype := str(part.get(key)).removeprefix("torch.")) in FLOAT_DTYPES.values():
                return dtype
    counts: Counter[str] = Counter()
    for tensor in tensors:
        if tensor.dtype in FLOAT_DTYPES:
            counts[FLOAT_DTYPES[tensor.dtype]] += tensor.numel
    return counts.most_common(1)[0][0] if counts else None


def checkpoint_quantization(config: Mapping[str, Any]) -> str | None:
    """`8bit`, `4bit` or the method's name, for weights that are quantised on the disk."""
    values = config.get("quantization_config")
    if not isinstance(values, dict) or not values:
        return None
    for bits in ("8bit", "4bit"):
        if values.get(f"load_in_{bits}"):
            return bits
    return str(values.get("quant_method", "unknown"))
