"""Read SAE files from publishers: JSON, safetensors and npz, never a pickle; each failure is an InvalidSae."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from millm.errors import InsufficientMemory, InvalidSae
from millm.hardware import free_memory
from millm.sae.config import SaeConfig
from millm.sae.headers import NPZ_ERRORS, read_npz_headers

_Struct = TypeVar("_Struct", bound=msgspec.Struct)


@dataclass(frozen=True)
class SourceSae:
    """An SAE as read from its publisher's layout, in our names and orientation, not yet checked."""

    config: SaeConfig
    tensors: dict[str, Tensor]
    sha256: str  # of the weights file
    folded: tuple[str, ...] = ()
    """Factors folded into the weights, e.g. `decoder norms`, `input scale 0.25`; removed from the configuration."""


def read_json_object(path: Path) -> dict[str, Any]:
    """Raises InvalidSae when the file is missing, is not strict JSON (no NaN) or not an object."""
    try:
        value = msgspec.json.decode(path.read_bytes())
    except FileNotFoundError:
        raise InvalidSae(f"{path.name} is missing from the SAE's folder") from None
    except (OSError, msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidSae(f"{path.name} cannot be read as JSON: {_reason(error)}") from error
    if not isinstance(value, dict):
        raise InvalidSae(f"{path.name} must hold a JSON object")
    return value


def convert_to_struct(raw: dict[str, Any], struct_type: type[_Struct], name: str) -> _Struct:
    """`raw` as a struct. Raises InvalidSae naming a field of the wrong type."""
    try:
        return msgspec.convert(raw, type=struct_type)
    except msgspec.ValidationError as error:
        raise InvalidSae(f"{name}: {error}") from error


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """Memory-mapped. Raises InvalidSae when the file is truncated, corrupt or not safetensors."""
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (it is not a dict)
    except (OSError, SafetensorError) as error:
        raise InvalidSae(f"{path.name} is not a complete safetensors file: {_reason(error)}") from error


def read_npz(path: Path) -> dict[str, Tensor]:
    """Raises InvalidSae when the file is truncated, corrupt, not an npz, holds Python objects or is a zip bomb.

    Raises InsufficientMemory when the arrays do not fit into memory.
    """
    needed, free = sum(header.nbytes for header in read_npz_headers(path).values()), free_memory("cpu")
    if free is not None and needed > free:
        raise InsufficientMemory(
            f"{path.name} unpacks to {needed:,} bytes, and {free:,} are free; unload a model first"
        )
    try:
        with path.open("rb") as file:
            loaded = np.load(file, allow_pickle=False)
            arrays = dict(loaded.items()) if isinstance(loaded, np.lib.npyio.NpzFile) else {}
    except NPZ_ERRORS as error:
        raise InvalidSae(f"{path.name} is not a complete npz file of plain numbers: {_reason(error)}") from error
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


def matrix_shape(tensors: dict[str, Tensor], name: str) -> tuple[int, int]:
    """Raises InvalidSae when the tensor is missing or not a matrix."""
    if name not in tensors:
        raise InvalidSae(f"tensor {name} is missing")
    if tensors[name].ndim != 2:
        raise InvalidSae(f"tensor {name} must be a matrix; its shape is {list(tensors[name].shape)}")
    rows, columns = tensors[name].shape
    return rows, columns


def drop_unit_scaling(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Drop the `scaling_factor` of ones in early files. Raises InvalidSae when it is not all ones."""
    rest = {name: tensor for name, tensor in tensors.items() if name != "scaling_factor"}
    if len(rest) < len(tensors) and not bool((tensors["scaling_factor"] == 1).all()):
        raise InvalidSae("a finetuned scaling_factor is not supported: it must be folded into W_dec")
    return rest


def dtype_name(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _reason(error: Exception) -> str:
    """The cause on one line, without the path in an operating system error."""
    if isinstance(error, OSError):
        return error.strerror or "it cannot be opened"
    return (str(error).splitlines() or ["it ends too early"])[0]
