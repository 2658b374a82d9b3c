"""An npz is checked before it is unpacked; each malformed file is rejected by name."""

import contextlib
import io
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file

from millm.errors import InsufficientMemory, InvalidSae
from millm.sae.formats import canonicalise, reader
from millm.sae.formats.reader import read_npz
from millm.sae.headers import MAX_NPZ_ENTRIES, read_npz_headers

GOOD = {"W_enc": np.ones((4, 8), np.float32), "b_dec": np.zeros(4, np.float16), "threshold": np.ones(8)}


def npy(header: str, data: bytes = b"") -> bytes:
    """The file of an array with a handwritten header."""
    padded = header.encode() + b" " * (64 - (10 + len(header) + 1) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(padded)) + padded + data


def archive(path: Path, entries: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as file:
        for name, content in entries.items():
            file.writestr(name, content)
    return path


def described(shape: object, dtype: str = "<f4") -> str:
    return f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}"


def test_npz_of_numpy_is_read(tmp_path: Path) -> None:
    for save in (np.savez, np.savez_compressed):
        save(tmp_path / "params.npz", **GOOD)
        headers = read_npz_headers(tmp_path / "params.npz")
        read = read_npz(tmp_path / "params.npz")
        assert {name: (array.shape, array.dtype) for name, array in headers.items()} == {
            name: (array.shape, array.dtype.name) for name, array in GOOD.items()
        }
        assert {name: tuple(tensor.shape) for name, tensor in read.items()} == {
            name: array.shape for name, array in GOOD.items()
        }


@pytest.mark.parametrize(
    ("header", "data"),
    [
        (described((100_000, 100_000)), b""),  # 40 GB, and nothing follows
        (described((2**62, 4)), b""),
        (described((-1, 4)), b""),
        (described("(" * 150 + ")" * 150), b""),
        (described((1,), "|O"), b"cos\nsystem\n"),
        (described((4,), "<i8"), b"\0" * 32),
        (described((4,), "<c8"), b"\0" * 32),
        (described((2,)), b"\0" * 9),  # longer than it says
        (described((2,)), b"\0" * 7),
        ("{}", b""),
        ("__import__('os')", b""),
        ("x" * 60_000, b""),
    ],
)
def test_arrays_with_false_headers_are_rejected(header: str, data: bytes, tmp_path: Path) -> None:
    path = archive(tmp_path / "params.npz", {"W_enc.npy": npy(header, data)})
    for read in (read_npz_headers, read_npz):
        with pytest.raises(InvalidSae) as caught:
            read(path)
        assert "params.npz" in caught.value.message
        assert str(tmp_path) not in caught.value.message


def test_a_header_of_nine_megabytes_is_rejected(tmp_path: Path) -> None:
    long = b"\x93NUMPY\x02\x00" + struct.pack("<I", 9_000_000) + b" " * 9_000_000
    with pytest.raises(InvalidSae):
        read_npz_headers(archive(tmp_path / "params.npz", {"W_enc.npy": long}))


def test_a_zip_bomb_is_not_unpacked(tmp_path: Path) -> None:
    """20 MB of zeros in 20 kB."""
    array = npy(described((5 << 20,)), b"\0" * (20 << 20))
    path = archive(tmp_path / "params.npz", {"W_enc.npy": array}, zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 100_000
    with pytest.raises(InvalidSae, match="unpacks to more than 20 times"):
        read_npz(path)


def test_a_directory_above_the_size_limit_is_rejected(tmp_path: Path) -> None:
    path = archive(tmp_path / "params.npz", {"W_enc.npy": b"x"})
    content = bytearray(path.read_bytes())
    directory = content.index(b"PK\x01\x02")
    for offset in (20, 24):  # packed and unpacked size
        content[directory + offset : directory + offset + 4] = struct.pack("<I", 2**32 - 2)
    path.write_bytes(content)
    with pytest.raises(InvalidSae):
        read_npz_headers(path)
    huge = {f"a{number}.npy": b"x" for number in range(3)}
    path = archive(tmp_path / "huge.npz", huge)
    content = bytearray(path.read_bytes())
    for number in range(3):
        directory = [offset for offset in range(len(content)) if content[offset : offset + 4] == b"PK\x01\x02"][number]
        for offset in (20, 24):
            content[directory + offset : directory + offset + 4] = struct.pack("<I", 2**32 - 2)
    path.write_bytes(content)
    with pytest.raises(InvalidSae, match="unpacks to 12,884,901,882 bytes"):
        read_npz_headers(path)


@pytest.mark.parametrize("name", ["../../x.npy", "/etc/passwd", "W_enc", "a b.npy", "W_enc.npy.py", "é.npy", ".npy"])
def test_other_entry_names_are_rejected(name: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidSae, match="which is not an array's name"):
        read_npz_headers(archive(tmp_path / "params.npz", {name: npy(described((1,)), b"\0" * 4)}))


def test_too_many_arrays_are_rejected(tmp_path: Path) -> None:
    np.savez(tmp_path / "params.npz", **{f"a{number}": np.ones(1) for number in range(MAX_NPZ_ENTRIES + 1)})
    with pytest.raises(InvalidSae, match="17 arrays"):
        read_npz_headers(tmp_path / "params.npz")


def test_an_encrypted_entry_is_rejected(tmp_path: Path) -> None:
    np.savez(tmp_path / "params.npz", **GOOD)
    content = bytearray((tmp_path / "params.npz").read_bytes())
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.index(signature) + offset] |= 1
    (tmp_path / "params.npz").write_bytes(content)
    with pytest.raises(InvalidSae):
        read_npz_headers(tmp_path / "params.npz")


@pytest.mark.parametrize("content", [b"", b"not a zip at all", b"PK\x05\x06" + b"\0" * 10, b"\x93NUMPY\x01\x00"])
def test_other_files_are_rejected(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "params.npz").write_bytes(content)
    with pytest.raises(InvalidSae):
        read_npz_headers(tmp_path / "params.npz")


def test_arrays_beyond_free_memory_are_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.savez(tmp_path / "params.npz", **GOOD)
    needed = sum(array.nbytes for array in GOOD.values())
    monkeypatch.setattr(reader, "free_memory", lambda _device: needed - 1)
    with pytest.raises(InsufficientMemory, match=f"unpacks to {needed} bytes, and {needed - 1} are free"):
        read_npz(tmp_path / "params.npz")
    monkeypatch.setattr(reader, "free_memory", lambda _device: needed)
    assert read_npz(tmp_path / "params.npz").keys() == GOOD.keys()


def test_thresholds_are_not_negative(tmp_path: Path, tiny_sae: Path) -> None:
    tensors = load_file(tiny_sae / "sae_weights.safetensors")
    tensors["threshold"][5] = -0.1
    np.savez(tmp_path / "params.npz", **tensors)
    with pytest.raises(InvalidSae, match="threshold holds negative numbers"):
        canonicalise(tmp_path, tmp_path / "canonical")
    tensors["threshold"][5] = 0
    np.savez(tmp_path / "params.npz", **tensors)
    canonicalise(tmp_path, tmp_path / "canonical")


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    flips=st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), min_size=1, max_size=6), packed=st.booleans()
)
def test_flipped_bytes_are_rejected_or_read(flips: list[tuple[int, int]], packed: bool, tmp_path: Path) -> None:
    buffer = io.BytesIO()
    (np.savez_compressed if packed else np.savez)(buffer, **GOOD)
    content = bytearray(buffer.getvalue())
    for offset, value in flips:
        content[offset % len(content)] = value
    path = tmp_path / "params.npz"
    path.write_bytes(content)
    for read in (read_npz_headers, read_npz):
        with contextlib.suppress(InvalidSae):
            read(path)
