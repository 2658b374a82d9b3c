"""A vector on the wire: cut to the dimensions asked for, as base64 or as the shortest numbers that say the same."""

import base64
from typing import Literal

import msgspec
import numpy as np
import numpy.typing as npt

Vector = npt.NDArray[np.float32]


def truncate_vector(data: bytes, dimensions: int | None) -> Vector:
    """The first `dimensions` of a vector of little-endian float32, at length 1 again  # [dimensions]"""
    whole = np.frombuffer(data, dtype="<f4")
    if dimensions is None or dimensions == len(whole):
        return whole
    cut = whole[:dimensions]
    unit: Vector = cut / np.maximum(np.linalg.norm(cut), np.float32(1e-12))
    return unit


def encode_vector(vector: Vector, encoding: Literal["float", "base64"]) -> str | msgspec.Raw:
    if encoding == "base64":
        return base64.b64encode(vector.astype("<f4").tobytes()).decode()
    # str of a float32 has as many digits as tell it from its neighbours; as a Python float it would have 17
    return msgspec.Raw(f"[{','.join(map(str, vector))}]".encode())
