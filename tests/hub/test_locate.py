"""Names → folders, with a real `huggingface_hub` and a stand-in hub on loopback."""

import shutil
from collections.abc import Iterator
from math import inf
from pathlib import Path

import pytest

from millm.errors import CannotStart, InvalidModel, InvalidSae, MillmError
from millm.hub.locate import LocalCheckpoint, locate_model, locate_sae
from tests.fixtures.fakehub import TOKEN, FakeHub, serving

MODEL = "tiny/llama"
SCOPE = "google/gemma-scope-2b-pt-res"
INSIDE = "layer_1/width_16k/average_l0_71"

ALLOWED = ["config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"]
NOT_ALLOWED = [
    "pytorch_model.bin", "modeling_tiny.py", "onnx/model.onnx", "onnx/config.json", "original/model.safetensors",
    "consolidated.safetensors", ".gitattributes", "README.md", "1_Dense/model.safetensors", "10_Pooling/config.json",
    "2_Normalize/config.json", "1_Pooling/onnx/config.json",
]  # fmt: skip


@pytest.fixture
def hub(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    """A hub with the tiny model, files that must not be downloaded, and an SAE deep in a repository."""
    root = tmp_path / "hub"
    shutil.copytree(tiny_model, root / MODEL)
    for name in NOT_ALLOWED:
        write(root / MODEL / name)
    write(root / SCOPE / INSIDE / "params.npz", 5000)
    for name in ("params.pt", "more/params.npz", "../average_l0_9/params.npz"):
        write(root / SCOPE / INSIDE / name)
    with serving(root) as running:
        for name, value in running.environment(tmp_path / "cache").items():
            monkeypatch.setenv(name, value)
        monkeypatch.delenv("HF_TOKEN", raising=False)
        monkeypatch.setenv("MILLM_DOWNLOAD_BACKOFF", "0.05")
        yield running


def write(path: Path, size: int = 10) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x" * size)


def silent(stage: str, done: int, total: int) -> None:
    pass


def names(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


# ---------------------------------------------------------------------------------------------------- local folders


def test_folder_is_used_in_place(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tiny_model.parent)
    expected = LocalCheckpoint("tiny-llama", tiny_model.resolve())
    assert locate_model(str(tiny_model), None, silent) == expected
    assert locate_model("tiny-llama", None, silent) == expected
    monkeypatch.setenv("HOME", str(tiny_model.parent))
    assert locate_model("~/tiny-llama", None, silent) == expected
    monkeypatch.chdir(tiny_model)
    assert locate_model(".", None, silent) == expected


@pytest.mark.parametrize(
    "name",
    ["./nowhere", "/nowhere/at/all", "nowhere", "~/.nowhere/model", "~stranger/model", "a/b/c", "-/-", "a b/c", ""],
)
def test_neither_folder_nor_id_is_rejected(name: str) -> None:
    with pytest.raises(CannotStart, match="neither a folder here nor a Hugging Face id"):
        locate_model(name, None, silent)


def test_file_is_rejected(tmp_path: Path) -> None:
    write(tmp_path / "model.gguf")
    with pytest.raises(CannotStart, match="is a file"):
        locate_model(str(tmp_path / "model.gguf"), None, silent)


@pytest.mark.parametrize("name", ["a/b/../../../etc", "a/../b"])
def test_path_outside_a_repository_is_rejected(name: str) -> None:
    with pytest.raises(CannotStart):
        locate_sae(name, None, silent)


@pytest.mark.parametrize("missing", ["config.json", "model.safetensors"])
def test_folder_without_model_is_rejected(missing: str, tiny_model: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    (folder / missing).unlink()
    with pytest.raises(InvalidModel, match=f"model has no .*{missing.removeprefix('model')}"):
        locate_model(str(folder), None, silent)


@pytest.mark.parametrize("left", [0, 4, 100, -1])
def test_truncated_weights_are_rejected(left: int, tiny_model: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:left])
    with pytest.raises(InvalidModel, match=r"model\.safetensors is cut short or damaged .*; download it again"):
        locate_model(str(folder), None, silent)


def test_sae_folder(tiny_sae: Path, tmp_path: Path) -> None:
    assert locate_sae(str(tiny_sae), None, silent) == LocalCheckpoint("tiny", tiny_sae.resolve())
    write(tmp_path / "sae" / "weights.pt")
    with pytest.raises(InvalidSae, match=r"no SAE found in sae: .*\.pt is not read"):
        locate_sae(str(tmp_path / "sae"), None, silent)


# ---------------------------------------------------------------------------------------------------------- the hub


def test_model_is_downloaded_by_id(hub: FakeHub, tiny_model: Path) -> None:
    """Only allowed files are downloaded, byte for byte, and the progress reaches its total."""
    reports: list[tuple[str, int, int]] = []
    located = locate_model(MODEL, None, lambda *report: reports.append(report))
    assert located.name == MODEL
    assert sorted(hub.downloaded) == [f"{MODEL}/{name}" for name in ALLOWED]
    assert names(located.folder) == ALLOWED
    assert [name for name in ALLOWED if (located.folder / name).read_bytes() != (tiny_model / name).read_bytes()] == []
    size = sum((tiny_model / name).stat().st_size for name in ALLOWED)
    assert reports[-1] == (f"downloading {MODEL}", size, size)
    assert [done for _, done, _ in reports] == sorted(done for _, done, _ in reports)


def test_pooling_configuration_is_downloaded(hub: FakeHub, tmp_path: Path) -> None:
    write(tmp_path / "hub" / MODEL / "1_Pooling" / "config.json")
    assert names(locate_model(MODEL, TOKEN, silent).folder) == ["1_Pooling/config.json", *ALLOWED]


def test_cached_model_needs_no_hub(hub: FakeHub) -> None:
    first = locate_model(MODEL, None, silent)
    hub.downloaded.clear()
    assert locate_model(MODEL, None, silent) == first
    hub.fail("", "status", times=inf)
    assert locate_model(MODEL, None, silent) == first
    assert hub.downloaded == []


def test_sae_inside_a_repository(hub: FakeHub) -> None:
    located = locate_sae(f"{SCOPE}/{INSIDE}/", None, silent)
    assert located.name == f"{SCOPE}/{INSIDE}"
    assert hub.downloaded == [f"{SCOPE}/{INSIDE}/params.npz"]
    assert names(located.folder) == ["params.npz"]
    assert located.folder.as_posix().endswith(INSIDE)


def test_sae_at_the_root_of_a_repository(hub: FakeHub) -> None:
    for name in ("cfg.json", "sae_weights.safetensors", "labels.jsonl", "other/sae_weights.safetensors", "log.txt"):
        write(hub.root / "some" / "sae" / name)
    assert names(locate_sae("some/sae", None, silent).folder) == ["cfg.json", "labels.jsonl", "sae_weights.safetensors"]


def test_gated_repository_with_access(hub: FakeHub) -> None:
    hub.gated, hub.private = {MODEL}, {MODEL}
    assert names(locate_model(MODEL, TOKEN, silent).folder) == ALLOWED


def test_exception_of_the_caller_ends_the_download(hub: FakeHub) -> None:
    hub.fail(".safetensors", "stall", times=inf, after=100)

    def give_up(stage: str, done: int, total: int) -> None:
        if f"{MODEL}/model.safetensors" in hub.downloaded:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        locate_model(MODEL, None, give_up)


def test_interrupted_download_can_be_restarted(hub: FakeHub) -> None:
    test_exception_of_the_caller_ends_the_download(hub)
    hub.forget()
    assert names(locate_model(MODEL, None, silent).folder) == ALLOWED


def problem(name: str, token: str | None = None) -> str:
    with pytest.raises(MillmError) as refused:
        locate_model(name, token, silent)
    assert "\n" not in refused.value.message
    return refused.value.message


def test_unknown_repository(hub: FakeHub) -> None:
    for token in (None, TOKEN):
        message = problem("tiny/nothing", token)
        assert message.startswith("tiny/nothing: no such repository on Hugging Face")
        assert message.endswith("nor is there such a folder here")


def test_private_repository(hub: FakeHub) -> None:
    hub.private = {MODEL}
    assert "HF_TOKEN" in problem(MODEL)


def test_gated_repository(hub: FakeHub) -> None:
    hub.gated = {MODEL}
    assert problem(MODEL).startswith(f"{MODEL}: gated; accept its licence")


def test_invalid_token(hub: FakeHub) -> None:
    assert problem(MODEL, "hf_wrong") == (
        f"{MODEL}: Hugging Face does not accept this HF_TOKEN; make a new one, or unset it for a public repository"
    )


def test_failing_hub(hub: FakeHub) -> None:
    hub.fail("", "status", times=inf)
    assert f"could not be downloaded from {hub.url} (status 503)" in problem(MODEL)


def test_unreachable_hub(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert "could not be downloaded from http://127.0.0.1:9 (ConnectError)" in problem(MODEL)


def test_offline_mode(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert "HF_HUB_OFFLINE forbids" in problem(MODEL)
    assert hub.downloaded == []


def test_unknown_sae_folder(hub: FakeHub) -> None:
    with pytest.raises(MillmError, match=f"{SCOPE} has no SAE in 'layer_9'"):
        locate_sae(f"{SCOPE}/layer_9", None, silent)
