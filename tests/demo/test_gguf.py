"""`read_gguf` against the formulas of ggml, on random blocks and on the demo's file, and what it rejects."""

import math
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from millm.demo.gguf import read_gguf, tensor_shape, tensor_values
from millm.errors import InvalidModel

BLOCK_BYTES = {"F32": 128, "F16": 64, "Q4_1": 20, "Q8_0": 34}
"""Of 32 values."""
SCALARS = {
    "uint8": 200,
    "int8": -100,
    "uint16": 60_000,
    "int16": -30_000,
    "uint32": 4_000_000_000,
    "int32": -2_000_000_000,
    "uint64": 2**60,
    "int64": -(2**60),
    "float32": 0.5,
    "float64": 0.1,
    "bool": True,
    "string": "Ġunïcode 🙂",
}


def write(path: Path, tensors: dict[str, tuple[np.ndarray, str]], metadata: dict[str, object] | None = None) -> Path:
    writer = gguf.GGUFWriter(path, "llama")
    for kind, value in SCALARS.items():
        getattr(writer, f"add_{kind}")(f"a.{kind}", value)
    for name, values in (metadata or {}).items():
        writer.add_array(name, values)
    for name, (values, kind) in tensors.items():
        code = gguf.GGMLQuantizationType[kind]
        writer.add_tensor(name, gguf.quantize(values, code), raw_dtype=code)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def unpack(kind: str, packed: np.ndarray) -> np.ndarray:
    """The formulas of ggml's dequantize_row_*, written once more: [values] of one tensor's bytes."""
    if kind in ("F32", "F16"):
        return packed.view(f"<f{int(kind[1:]) // 8}").astype(np.float32).ravel()
    if kind == "Q8_0":
        blocks = packed.reshape(-1, 34)
        return (blocks[:, :2].view("<f2").astype(np.float32) * blocks[:, 2:].view(np.int8)).ravel()
    blocks = packed.reshape(-1, 20)
    scale, minimum = (blocks[:, start : start + 2].copy().view("<f2").astype(np.float32) for start in (0, 2))
    levels = np.concatenate([blocks[:, 4:] & 15, blocks[:, 4:] >> 4], axis=1)  # values i and i + 16 share a byte
    return (scale * levels.astype(np.float32) + minimum).ravel()


def tensor_rows(path: Path) -> Iterator[tuple[str, tuple[int, ...], str, np.ndarray]]:
    """(name, shape, type, bytes) of each tensor, read with struct alone; metadata must hold no arrays but of text."""
    data, position = path.read_bytes(), 8

    def take(layout: str) -> Any:
        nonlocal position
        (value,) = struct.unpack_from(layout, data, position)
        position += struct.calcsize(layout)
        return value

    def text() -> str:
        length = take("<Q")
        return take(f"{length}s").decode()

    def skip_value(kind: int) -> None:
        if kind == 9:
            element, count = take("<I"), take("<Q")
            for _ in range(count):
                skip_value(element)
        elif kind == 8:
            text()
        else:
            take(
                {0: "B", 1: "b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "?", 10: "<Q", 11: "<q", 12: "<d"}[
                    kind
                ]
            )

    tensors, keys = take("<Q"), take("<Q")
    for _ in range(keys):
        text()
        skip_value(take("<I"))
    rows = [
        (text(), tuple(take("<Q") for _ in range(take("<I")))[::-1], take("<I"), take("<Q")) for _ in range(tensors)
    ]
    start = -(-position // 32) * 32
    for name, shape, code, offset in rows:
        kind = {0: "F32", 1: "F16", 3: "Q4_1", 8: "Q8_0"}[code]
        size = math.prod(shape) * BLOCK_BYTES[kind] // 32
        yield name, shape, kind, np.frombuffer(data, np.uint8, size, start + offset)


def assert_same_tensors(path: Path) -> None:
    tensors, expected = read_gguf(path).tensors, list(tensor_rows(path))
    assert [tensor.name for tensor in tensors] == [name for name, *_ in expected]
    for tensor, (name, shape, kind, packed) in zip(tensors, expected, strict=True):
        values = tensor_values(tensor)
        np.testing.assert_array_equal(values, unpack(kind, packed).reshape(shape), err_msg=name)
        assert tensor_shape(tensor) == shape
        assert values.dtype == np.float32


@settings(max_examples=30, deadline=None)
@given(
    kind=st.sampled_from(["F32", "F16", "Q4_1", "Q8_0"]),
    rows=st.integers(1, 5),
    blocks=st.integers(1, 4),
    seed=st.integers(0, 2**32),
    spread=st.sampled_from([1e-4, 1.0, 1e3]),
)
def test_tensors_match_the_formulas(
    kind: str, rows: int, blocks: int, seed: int, spread: float, tmp_path_factory: pytest.TempPathFactory
) -> None:
    values = np.random.default_rng(seed).normal(0, spread, (rows, 32 * blocks)).astype(np.float32)
    path = tmp_path_factory.mktemp("gguf") / "one.gguf"
    assert_same_tensors(write(path, {"first": (values, kind), "second": (values[::-1].copy(), kind)}))


def test_metadata_round_trips(tmp_path: Path) -> None:
    arrays = {"words": ["a", "", "Ġb"], "numbers": [1, -2, 3], "flags": [True, False], "reals": [0.5, 2.0]}
    metadata = read_gguf(write(tmp_path / "meta.gguf", {}, arrays)).metadata
    assert {kind: metadata[f"a.{kind}"] for kind in SCALARS} == SCALARS
    assert {name: metadata[name] for name in arrays} == arrays


def test_unsupported_tensor_type_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "q5.gguf", {"blk.7.odd": (np.ones((1, 32), np.float32), "Q5_0")})
    with pytest.raises(InvalidModel, match=r"q5\.gguf.*'blk\.7\.odd'.*type Q5_0.*Q4_1"):
        read_gguf(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty"),
        (b"GGUF", "cut short"),
        (b"PK\x03\x04" + bytes(40), "not a GGUF"),
        (b"GGUF" + struct.pack("<IQQ", 2, 0, 0), "version 2"),
        (b"GGUF" + struct.pack(">IQQ", 3, 0, 0), "little-endian"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + struct.pack("<Q1sI", 1, b"k", 99), r"99\) is not a valid"),
        (b"GGUF" + struct.pack("<IQQ", 3, 1, 0) + struct.pack("<Q1sI", 1, b"t", 2**31), "cut short"),
    ],
)
def test_invalid_files_are_rejected(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "bad.gguf"
    path.write_bytes(content)
    with pytest.raises(InvalidModel, match=message):
        read_gguf(path)


def test_file_cut_short_anywhere_is_rejected(tiny_gguf: Path, tmp_path: Path) -> None:
    complete = tiny_gguf.read_bytes()
    path = tmp_path / "cut.gguf"
    for length in [*range(1, 4000, 97), *range(4000, len(complete), len(complete) // 50), len(complete) - 32]:
        path.write_bytes(complete[:length])
        with pytest.raises(InvalidModel):
            read_gguf(path)


@pytest.mark.demo
def test_demo_file_is_read_exactly(demo_gguf: Path) -> None:
    start = time.process_time()
    model = read_gguf(demo_gguf)
    assert time.process_time() - start < 15  # 3 s: the package reads the tokenizer's 150,000 strings one by one
    assert len(model.metadata["tokenizer.ggml.tokens"]) == 49_152
    assert_same_tensors(demo_gguf)
