"""Our GGUF reader against the `gguf` package, on made-up blocks and on the real file."""

import struct
import time
from pathlib import Path

import gguf
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from millm.demo.gguf import read_gguf
from millm.errors import InvalidModel

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


def assert_same_tensors(path: Path) -> None:
    ours, theirs = read_gguf(path).tensors, gguf.GGUFReader(path).tensors
    assert [tensor.name for tensor in ours] == [tensor.name for tensor in theirs]
    for mine, reference in zip(ours, theirs, strict=True):
        expected = gguf.dequantize(reference.data, reference.tensor_type)
        np.testing.assert_array_equal(mine.values(), expected, err_msg=mine.name)
        assert mine.values().dtype == np.float32


@settings(max_examples=30, deadline=None)
@given(
    kind=st.sampled_from(["F32", "F16", "Q4_1", "Q8_0"]),
    rows=st.integers(1, 5),
    blocks=st.integers(1, 4),
    seed=st.integers(0, 2**32),
    spread=st.sampled_from([1e-4, 1.0, 1e3]),
)
def test_tensors_are_what_the_gguf_package_reads(
    kind: str, rows: int, blocks: int, seed: int, spread: float, tmp_path_factory: pytest.TempPathFactory
) -> None:
    values = np.random.default_rng(seed).normal(0, spread, (rows, 32 * blocks)).astype(np.float32)
    path = tmp_path_factory.mktemp("gguf") / "one.gguf"
    assert_same_tensors(write(path, {"first": (values, kind), "second": (values[::-1].copy(), kind)}))


def test_metadata_comes_back(tmp_path: Path) -> None:
    arrays = {"words": ["a", "", "Ġb"], "numbers": [1, -2, 3], "flags": [True, False], "reals": [0.5, 2.0]}
    metadata = read_gguf(write(tmp_path / "meta.gguf", {}, arrays)).metadata
    assert {kind: metadata[f"a.{kind}"] for kind in SCALARS} == SCALARS
    assert {name: metadata[name] for name in arrays} == arrays


def test_unknown_tensor_type_is_refused_by_name(tmp_path: Path) -> None:
    path = write(tmp_path / "q5.gguf", {"blk.7.odd": (np.ones((1, 32), np.float32), "Q5_0")})
    with pytest.raises(InvalidModel, match=r"q5\.gguf.*'blk\.7\.odd'.*type 6.*Q4_1"):
        read_gguf(path)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "empty"),
        (b"GGUF", "cut short"),
        (b"PK\x03\x04" + bytes(40), "not a GGUF"),
        (b"GGUF" + struct.pack("<IQQ", 2, 0, 0), "version 2"),
        (b"GGUF" + struct.pack(">IQQ", 3, 0, 0), "little-endian"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + struct.pack("<Q1sI", 1, b"k", 99), "type 99"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + struct.pack("<Q1sIIQ", 1, b"k", 9, 4, 2**63), "cut short"),
        (b"GGUF" + struct.pack("<IQQ", 3, 1, 0) + struct.pack("<Q1sI", 1, b"t", 2**31), "cut short"),
    ],
)
def test_what_is_no_gguf_is_refused(tmp_path: Path, content: bytes, complaint: str) -> None:
    path = tmp_path / "bad.gguf"
    path.write_bytes(content)
    with pytest.raises(InvalidModel, match=complaint):
        read_gguf(path)


def test_cut_short_anywhere_is_refused(tiny_gguf: Path, tmp_path: Path) -> None:
    whole = tiny_gguf.read_bytes()
    path = tmp_path / "cut.gguf"
    for length in [*range(1, 4000, 97), *range(4000, len(whole), len(whole) // 50), len(whole) - 32]:
        path.write_bytes(whole[:length])
        with pytest.raises(InvalidModel):
            read_gguf(path)


@pytest.mark.demo
def test_the_real_file_is_read_right_and_fast(demo_gguf: Path) -> None:
    start = time.process_time()
    model = read_gguf(demo_gguf)
    assert time.process_time() - start < 1
    assert len(model.metadata["tokenizer.ggml.tokens"]) == 49_152
    assert_same_tensors(demo_gguf)
