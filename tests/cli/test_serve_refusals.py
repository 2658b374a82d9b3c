"""A server that cannot start prints one error line and leaves no process behind."""

import json
import os
import shutil
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.cli.terminal import assert_refused, assert_refused_at_once, millm
from tests.fixtures.process import Server
from tests.fixtures.tiny import FEATURES, LAYERS, WIDTH, write_sae


@pytest.fixture
def model(tiny_model: Path, tmp_path: Path) -> Path:
    """A copy of the tiny model, to be damaged."""
    return Path(shutil.copytree(tiny_model, tmp_path / "model"))


# ------------------------------------------------------------------------------ before anything heavy is started


def test_port_taken(tiny_model: Path, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        ran = millm("serve", str(tiny_model), "--port", str(port), home=tmp_path)
    assert_refused_at_once(ran, f"port {port} is taken", "--port")


def test_a_second_server_is_refused_within_two_seconds(server: Server, tiny_model: Path, tmp_path: Path) -> None:
    """Seconds of processor time, which do not depend on the load of the machine."""
    port = server.url.rpartition(":")[2]
    for home, chosen, words in ((server.home, "0", "MILLM_HOME"), (tmp_path, port, "--port")):
        before = os.times()
        assert_refused_at_once(millm("serve", str(tiny_model), "--port", chosen, home=home), words)
        after = os.times()
        seconds = after.children_user + after.children_system - before.children_user - before.children_system
        assert seconds < 2


def test_debug_shows_the_trace(tiny_model: Path, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        ran = millm("serve", str(tiny_model), "--port", str(other.getsockname()[1]), "--debug", home=tmp_path)
    assert ran.code == 1
    assert "Traceback" in ran.err
    assert "PortTaken" in ran.last_line


def test_second_server_on_one_home(server: Server, tiny_model: Path) -> None:
    ran = millm("serve", str(tiny_model), "--port", "0", home=server.home)
    assert_refused_at_once(ran, str(server.process.pid), str(server.home), "MILLM_HOME")


@pytest.mark.parametrize("host", ["203.0.113.7", "not..a.name", ""])
def test_host_that_cannot_be_bound(host: str, tiny_model: Path, tmp_path: Path) -> None:
    """An empty host would mean every address of this machine."""
    assert_refused_at_once(millm("serve", str(tiny_model), "--host", host, home=tmp_path), repr(host), "--host")


def test_bad_port_in_the_environment(tiny_model: Path, tmp_path: Path) -> None:
    assert_refused_at_once(millm("serve", str(tiny_model), home=tmp_path, MILLM_PORT="eight"), "MILLM_PORT")


def test_home_that_cannot_be_written(tiny_model: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    assert_refused_at_once(millm("serve", str(tiny_model), home=tmp_path / "file"), "MILLM_HOME")


def test_missing_model(tmp_path: Path) -> None:
    ran = millm("serve", "./nowhere", "--port", "0", home=tmp_path)
    assert_refused_at_once(ran, "'./nowhere'", "neither a folder", "owner/name")


def test_folder_without_a_configuration(model: Path, tmp_path: Path) -> None:
    (model / "config.json").unlink()
    ran = millm("serve", str(model), "--port", "0", home=tmp_path)
    assert_refused_at_once(ran, "model has no config.json")


def test_missing_demo_wheel(tmp_path: Path) -> None:
    assert_refused_at_once(millm("demo", "--from", "~stranger/demo.whl", home=tmp_path), "~stranger/demo.whl")


def test_truncated_weights(model: Path, tmp_path: Path) -> None:
    weights = model / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    ran = millm("serve", str(model), "--port", "0", home=tmp_path)
    assert_refused_at_once(ran, "model.safetensors", "download it again")


def test_missing_sae_folder(tiny_model: Path, tmp_path: Path) -> None:
    ran = millm("serve", str(tiny_model), "--sae", "./nowhere", "--port", "0", home=tmp_path)
    assert_refused_at_once(ran, "SAE './nowhere'", "neither a folder")


def test_folder_without_an_sae(tiny_model: Path, tmp_path: Path) -> None:
    (tmp_path / "sae").mkdir()
    ran = millm("serve", str(tiny_model), "--sae", str(tmp_path / "sae"), "--port", "0", home=tmp_path)
    assert_refused_at_once(ran, "no SAE found in sae")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", ["not a JSON document"]),
        ('{"name": "p", "strenght": 3}', ["strenght"]),
        ('{"name": "p", "features": [{"index": 3, "strength": NaN}]}', ["features.0.strength", "finite"]),
    ],
)
def test_invalid_profile_file(content: str, words: list[str], tiny_model: Path, tmp_path: Path) -> None:
    path = tmp_path / "mine.json"
    path.write_text(content)
    ran = millm("serve", str(tiny_model), "--profile", str(path), "--port", "0", home=tmp_path / "home")
    assert_refused_at_once(ran, "mine.json", *words)


def test_missing_profile_file(tiny_model: Path, tmp_path: Path) -> None:
    ran = millm("serve", str(tiny_model), "--profile", "nowhere.json", "--port", "0", home=tmp_path)
    assert_refused_at_once(ran, "nowhere.json", "No such file")


def test_unknown_profile_name(tiny_model: Path, tmp_path: Path) -> None:
    (tmp_path / "profiles").mkdir()
    (tmp_path / "profiles" / "calm.json").write_text('{"name": "calm"}')
    ran = millm("serve", str(tiny_model), "--profile", "wild", "--port", "0", home=tmp_path)
    assert_refused_at_once(ran, "`wild`", "calm")


# ------------------------------------------------------------------------------------ what only the engine can see


def _without_a_tensor(weights: dict[str, torch.Tensor]) -> None:
    del weights["model.layers.2.mlp.up_proj.weight"]


def _with_nan(weights: dict[str, torch.Tensor]) -> None:
    weights["model.layers.2.mlp.up_proj.weight"][5, 7] = float("nan")


@pytest.mark.parametrize(("damage", "word"), [(_without_a_tensor, "lacks"), (_with_nan, "NaN")])
def test_damaged_weights(
    damage: Callable[[dict[str, torch.Tensor]], None], word: str, model: Path, tmp_path: Path
) -> None:
    weights = load_file(model / "model.safetensors")
    damage(weights)
    save_file(weights, model / "model.safetensors", metadata={"format": "pt"})
    ran = millm("serve", str(model), "--port", "0", home=tmp_path)
    assert_refused(ran, word, "model.layers.2.mlp.up_proj.weight", "download it again")


def test_sae_of_another_width(tiny_model: Path, tmp_path: Path) -> None:
    sae = write_sae(tmp_path / "sae", width=64)
    ran = millm("serve", str(tiny_model), "--sae", str(sae), "--port", "0", home=tmp_path)
    assert_refused(ran, "64", str(WIDTH))


def test_sae_for_a_missing_layer(tiny_model: Path, tmp_path: Path) -> None:
    sae = write_sae(tmp_path / "sae", layer=LAYERS)
    ran = millm("serve", str(tiny_model), "--sae", str(sae), "--port", "0", home=tmp_path)
    assert_refused(ran, str(LAYERS), str(LAYERS - 1))


def test_profile_with_a_feature_beyond_the_sae(tiny_model: Path, tiny_sae: Path, tmp_path: Path) -> None:
    path = tmp_path / "beyond.json"
    path.write_text(json.dumps({"name": "beyond", "features": [{"index": FEATURES, "strength": 3}]}))
    arguments = ["serve", str(tiny_model), "--sae", str(tiny_sae), "--profile", str(path), "--port", "0"]
    assert_refused(millm(*arguments, home=tmp_path), str(FEATURES), f"0..{FEATURES - 1}")
