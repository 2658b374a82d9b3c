"""miLLM's own SAE folder: `sae.safetensors`, a row per feature so that k features are k reads, and `config.json`.

The folder's name is a hash of its header. It is written under another name and renamed, so it is complete or absent.
"""

import dataclasses
import hashlib
import os
import shutil
from pathlib import Path
from typing import Literal

import msgspec
import torch
from safetensors.torch import save_file
from torch import Tensor

from millm.errors import InvalidSae
from millm.sae.activations import decoder_norms
from millm.sae.config import SaeConfig
from millm.sae.formats.reader import SourceSae, convert_to_struct, dtype_name, read_json_object, read_safetensors

WEIGHTS_FILE = "sae.safetensors"
HEADER_FILE = "config.json"
_FLOAT_DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16)


class CanonicalHeader(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`config.json`."""

    millm_sae: Literal[1] = 1  # version of this format
    sha256: str  # of the original weights file
    folded: tuple[str, ...] = ()  # factors that the conversion folded into the weights
    config: SaeConfig


def tensor_shapes(config: SaeConfig) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor of an SAE with this configuration."""
    features = (config.d_sae,)
    shapes = {
        "W_enc_T": (config.d_sae, config.d_in),
        "W_dec": (config.d_sae, config.d_out),
        "b_dec": (config.d_out,),
    }
    if config.architecture == "gated":
        return shapes | {"b_gate": features, "r_mag": features, "b_mag": features}
    if config.has_threshold:
        shapes["threshold"] = features
    if config.has_skip:
        shapes["W_skip"] = (config.d_out, config.d_in)
    return shapes | {"b_enc": features}


def open_canonical(folder: Path) -> tuple[CanonicalHeader, dict[str, Tensor]]:
    """The header and the memory-mapped tensors. Raises InvalidSae when the folder is incomplete or damaged."""
    header = convert_to_struct(read_json_object(folder / HEADER_FILE), CanonicalHeader, HEADER_FILE)
    tensors = read_safetensors(folder / WEIGHTS_FILE)
    check_tensors(header.config, tensors)
    return header, tensors


def store_canonical(source: SourceSae, root: Path) -> Path:
    """Check all numbers and write the canonical folder under `root`, unless it exists."""
    check_tensors(source.config, source.tensors)
    header = msgspec.json.encode(CanonicalHeader(sha256=source.sha256, folded=source.folded, config=source.config))
    folder = root / hashlib.sha256(header).hexdigest()[:16]
    if not _is_valid_folder(folder):
        _check_numbers(source.tensors)
        _write_folder(folder, header, source.tensors)
    return folder


def check_tensors(config: SaeConfig, tensors: dict[str, Tensor]) -> None:
    """Raises InvalidSae for a missing, unexpected or misshapen tensor, or one that is not of floats."""
    shapes = tensor_shapes(config)
    if missing := sorted(shapes.keys() - tensors.keys()):
        raise InvalidSae(f"tensor {missing[0]} is missing; architecture {config.architecture!r} needs it")
    if unexpected := sorted(tensors.keys() - shapes.keys()):
        raise InvalidSae(f"tensor {unexpected[0]!r} is not part of architecture {config.architecture!r}")
    for name, shape in shapes.items():
        tensor = tensors[name]
        if tensor.shape != shape:
            raise InvalidSae(f"tensor {name} has shape {list(tensor.shape)}; the configuration says {list(shape)}")
        if tensor.dtype not in _FLOAT_DTYPES:
            raise InvalidSae(f"tensor {name} has type {tensor.dtype}; it must be a 16, 32 or 64 bit float")


def _check_numbers(tensors: dict[str, Tensor]) -> None:
    for name, tensor in tensors.items():
        if not bool(torch.stack(tensor.aminmax()).isfinite().all()):
            raise InvalidSae(f"tensor {name} holds NaN or infinite numbers; download the SAE again")
    if "threshold" in tensors and bool((tensors["threshold"] < 0).any()):
        raise InvalidSae("tensor threshold holds negative numbers, which no JumpReLU has; download the SAE again")


def _is_valid_folder(folder: Path) -> bool:
    if not folder.exists():
        return False
    try:
        open_canonical(folder)
    except InvalidSae:
        return False  # damaged since it was written; it is written again
    return True


def _write_folder(folder: Path, header: bytes, tensors: dict[str, Tensor]) -> None:
    partial = folder.with_name(f".partial-{folder.name}")
    shutil.rmtree(partial, ignore_errors=True)  # of a conversion that was killed
    partial.mkdir(parents=True)
    try:
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, partial / WEIGHTS_FILE)
        (partial / HEADER_FILE).write_bytes(msgspec.json.format(header))
        for path in (partial / WEIGHTS_FILE, partial / HEADER_FILE, partial):
            _fsync(path)
        shutil.rmtree(folder, ignore_errors=True)
        partial.rename(folder)
        _fsync(folder.parent)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def fold_input_scale(source: SourceSae, scale: float) -> SourceSae:
    """Convert an SAE trained on `scale`·x to one that reads x: SAELens' `fold_activation_norm_scaling_factor`."""
    old = source.tensors
    return _with_folded_tensors(
        source,
        f"input scale {scale}",
        W_enc_T=_at_least_float32(old["W_enc_T"]) * scale,
        W_dec=_at_least_float32(old["W_dec"]) / scale,
        b_dec=_at_least_float32(old["b_dec"]) / scale,
    )


def fold_decoder_norms(source: SourceSae) -> SourceSae:
    """Scale decoder rows to unit length and the encoder by their norms: SAELens' `fold_W_dec_norm`.

    The threshold is in the new units already.
    """
    old = source.tensors
    decoder = _at_least_float32(old["W_dec"])
    norms = decoder_norms(decoder)  # [F]
    return _with_folded_tensors(
        source,
        "decoder norms",
        W_enc_T=_at_least_float32(old["W_enc_T"]) * norms.unsqueeze(-1),
        b_enc=_at_least_float32(old["b_enc"]) * norms,
        W_dec=decoder / norms.unsqueeze(-1),
    )


def _with_folded_tensors(source: SourceSae, description: str, **tensors: Tensor) -> SourceSae:
    config = msgspec.structs.replace(source.config, dtype=dtype_name(tensors["W_enc_T"]))
    return dataclasses.replace(
        source, config=config, tensors=source.tensors | tensors, folded=(*source.folded, description)
    )


def _at_least_float32(tensor: Tensor) -> Tensor:
    return tensor if tensor.dtype == torch.float64 else tensor.float()
