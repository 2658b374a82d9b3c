"""Converted SAEs of other libraries equal SAELens; code in a pickle never runs."""

import asyncio
import os
import pickle
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from millm.errors import InvalidSae
from millm.hub.home import Home
from millm.hub.jobs import DownloadSpec
from millm.hub.sae_conversion import (
    build_conversion_request,
    convert_sae,
    converter_environment,
    find_converted,
    foreign_layout,
    inspect_source,
)
from millm.sae.autoencoder import SparseAutoencoder
from millm.sae.config import SaeConfig
from millm.sae.conversion.process import convert
from millm.sae.conversion.readers import load_state_dict
from millm.sae.formats import canonicalise
from tests.fixtures.foreign_saes import SAES, D, F, ForeignSae, K, inputs, numbers, sparsify, write

GOLDENS = Path(__file__).parent / "goldens" / "foreign.safetensors"
ROOT = Path(__file__).parents[2]
OVERRIDE = "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


def download_spec(sae: ForeignSae) -> DownloadSpec:
    return DownloadSpec(kind="sae", repository=sae.repository, path=sae.path)


def convert_here(sae: ForeignSae, home: Home) -> Path:
    """The folder, converted in this process."""
    source = write(sae, home.folder / "hub" / sae.repository)
    layout = inspect_source(source)
    assert layout is not None
    target = home.folder / "made"
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir()
    convert(
        msgspec.structs.replace(build_conversion_request(source, layout, download_spec(sae)), target=str(target)),
        lambda stage: None,
    )
    return target


def convert_in_process(sae: ForeignSae, home: Home, **limits: Any) -> Path:
    """The folder, converted in a process of its own."""
    source = write(sae, home.folder / "hub" / sae.repository)
    return asyncio.run(convert_sae(source, download_spec(sae), home, lambda stage: None, **limits))


def read(folder: Path, home: Home) -> SparseAutoencoder:
    return SparseAutoencoder.open(canonicalise(folder, home.canonical_saes))


def assert_equals(actual: Tensor, expected: Tensor) -> None:
    """To 1e-5 of the largest value, with the same features active."""
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-5 * float(expected.abs().max()))
    assert torch.equal(actual > 1e-4, expected > 1e-4)


# -- the mathematics ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", SAES)
def test_converted_saes_equal_saelens(kind: str, home: Home) -> None:
    expected = load_file(GOLDENS)
    assert 0.05 < float((expected[f"{kind}.acts"] != 0).float().mean()) < 0.95
    sae = read(convert_here(SAES[kind], home), home)
    assert_equals(sae.encode(inputs()), expected[f"{kind}.acts"])
    torch.testing.assert_close(sae.reconstruct(inputs()), expected[f"{kind}.recon"], rtol=1e-5, atol=1e-4)


def test_sparsify_equals_its_own_class(home: Home) -> None:
    """`SparseCoder` of eai-sparsify 1.3: relu(W(x − b_dec) + b), the k largest, their rows of W_dec, + b_dec."""
    published = sparsify()
    weights = published.files()["layers.10/sae.safetensors"]
    x = inputs()
    pre = torch.relu(
        torch.nn.functional.linear(x - weights["b_dec"], weights["encoder.weight"], weights["encoder.bias"])
    )
    values, indices = pre.topk(K, dim=-1)
    expected = torch.zeros_like(pre).scatter(-1, indices, values)
    recon = torch.einsum("btk,btkd->btd", values, weights["W_dec"][indices]) + weights["b_dec"]
    sae = read(convert_here(published, home), home)
    assert_equals(sae.encode(x), expected)
    torch.testing.assert_close(sae.reconstruct(x), recon, rtol=1e-5, atol=1e-4)


# -- configuration ----------------------------------------------------------------------------------------

PLACES = {
    "AutoEncoder": ("blocks.3.hook_resid_post", None, "me/some-model", "dictionary_learning"),
    "llama_scope": ("blocks.16.hook_resid_post", None, "meta-llama/Llama-3.1-8B", "llama_scope"),
    "llama_scope_r1_distill": (
        "blocks.16.hook_resid_post", None, "deepseek-ai/DeepSeek-R1-Distill-Llama-8B", "llama_scope_r1_distill",
    ),
    "qwen_scope": ("blocks.14.hook_resid_post", "model.layers.14.output", None, "qwen_scope"),
    "goodfire": ("blocks.19.hook_resid_post", None, "meta-llama/Llama-3.1-8B-Instruct", "torch_linear"),
    "mwhanna": ("blocks.18.mlp.hook_in", None, "Qwen/Qwen3-4B", "mwhanna"),
    "connor_rob": ("blocks.6.attn.hook_z", None, None, "connor_rob"),
}  # fmt: skip


@pytest.mark.parametrize("kind", PLACES)
def test_hook_point_and_model(kind: str, home: Home) -> None:
    config: SaeConfig = read(convert_here(SAES[kind], home), home).config
    assert (config.hook_name, config.hf_hook_name, config.model_name, config.source_format) == PLACES[kind]
    assert (config.d_in, config.d_sae, config.dtype) == (D, F, "float32")


def test_the_sparsify_folder_name_is_the_hooked_module(home: Home) -> None:
    config = read(convert_here(sparsify(), home), home).config
    assert (config.hook_name, config.hf_hook_name, config.layer) == (
        "blocks.10.hook_resid_post",
        "layers.10.output",
        10,
    )


def test_sixteen_bit_weights_become_float32(home: Home) -> None:
    published = SAES["qwen_scope"]
    half = {name: tensor.bfloat16() for name, tensor in published.files()["layer14.sae.pt"].items()}
    sixteen = ForeignSae("", published.repository, published.path, lambda: {published.path: half})
    stored = load_file(convert_here(sixteen, home) / "sae_weights.safetensors")
    assert {tensor.dtype for tensor in stored.values()} == {torch.float32}
    assert torch.equal(stored["W_enc"], half["W_enc"].T.float())


def test_stages_are_reported_and_the_result_is_reused(home: Home) -> None:
    published = SAES["qwen_scope"]
    source = write(published, home.folder / "hub")
    stages: list[str] = []
    assert find_converted(source, published.name, home) is None
    first = asyncio.run(convert_sae(source, download_spec(published), home, stages.append))
    assert stages == ["reading", "writing", "checking"]
    assert find_converted(source, published.name, home) == first
    assert asyncio.run(convert_sae(source, download_spec(published), home, stages.append)) == first
    assert len(stages) == 3


def test_changed_files_are_converted_again(home: Home) -> None:
    published = SAES["qwen_scope"]
    first = convert_in_process(published, home)
    others = numbers(77, W_enc=(F, D), W_dec=(D, F), b_enc=(F,), b_dec=(D,))
    second = convert_in_process(
        ForeignSae("", published.repository, published.path, lambda: {published.path: others}), home
    )
    assert first != second
    assert (read(first, home).encode(inputs()) != read(second, home).encode(inputs())).any()


def test_a_folder_with_one_sae_file_is_that_sae(home: Home) -> None:
    """As a user imports it."""
    published = SAES["goodfire"]
    source = write(published, home.folder / "mine").parent
    folder = asyncio.run(
        convert_sae(source, DownloadSpec(kind="sae", repository="", path=""), home, lambda stage: None)
    )
    assert read(folder, home).config.hook_name == "blocks.19.hook_resid_post"


# -- errors ----------------------------------------------------------------------------------------------


def rejection(published: ForeignSae, home: Home) -> str:
    with pytest.raises(InvalidSae) as caught:
        convert_here(published, home)
    return check_message(caught.value, home)


def rejection_in_process(published: ForeignSae, home: Home, **limits: Any) -> str:
    """And nothing is left of it."""
    with pytest.raises(InvalidSae) as caught:
        convert_in_process(published, home, **limits)
    assert list(home.converted_saes.iterdir()) == []
    return check_message(caught.value, home)


def check_message(error: InvalidSae, home: Home) -> str:
    assert str(home.folder) not in error.message
    return error.message


def changed(kind: str, file: str, content: Any) -> ForeignSae:
    """The SAE with another content of one of its files."""
    published = SAES[kind]
    return ForeignSae("", published.repository, published.path, lambda: published.files() | {file: content})


CONFIG = "resid_post_layer_3/trainer_0/config.json"


@pytest.mark.parametrize(
    ("published", "message"),
    [
        (sparsify(signed=True), "signed True is not supported"),
        (sparsify(transcode=True), "transcode True is not supported"),
        (sparsify(activation="groupmax"), "activation 'groupmax' is not supported"),
        (sparsify(k=None), "cfg.json: k must be a positive number"),
        (sparsify(k=F + 1), f"k is {F + 1}; it must be 1 to d_sae {F}"),
        (
            changed("AutoEncoder", CONFIG, {"trainer": {"dict_class": "CrossCoder"}}),
            "dict_class 'CrossCoder' is not supported; supported are AutoEncoder,",
        ),
        (
            changed("AutoEncoder", CONFIG, {"trainer": {"dict_class": "GatedAutoEncoder", "layer": 1}}),
            "tensor gate_bias is missing",
        ),
        (
            changed("AutoEncoder", CONFIG, {
                "trainer": {"dict_class": "AutoEncoder", "lm_name": "m", "submodule_name": "attn_out_layer_1"}
            }),
            "submodule 'attn_out_layer_1' is not supported",
        ),
        (changed("AutoEncoder", CONFIG, "not json"), "config.json cannot be read as JSON"),
        (changed("qwen_scope", "layer14.sae.pt", torch.zeros(3)), "holds no tensors by name"),
        (changed("qwen_scope", "layer14.sae.pt", {"W_enc": torch.zeros(3)}), "must be a matrix"),
        (
            changed("llama_scope", "Llama3_1-8B-Base-L16R-8x/hyperparams.json", {"d_model": D}),
            "dataset_average_activation_norm.in must be a positive number",
        ),
        (
            ForeignSae("", "me/saes", "layer1.sae.pt", lambda: {"layer1.sae.pt": numbers(1, W_enc=(F, D))}),
            "the repository's name lacks k",
        ),
    ],
)  # fmt: skip
def test_unsupported_saes_are_rejected_by_name(published: ForeignSae, message: str, home: Home) -> None:
    assert message in rejection(published, home)


def test_a_truncated_file_is_rejected(home: Home) -> None:
    published = SAES["qwen_scope"]
    source = write(published, home.folder / "hub")
    source.write_bytes(source.read_bytes()[:-200])
    with pytest.raises(InvalidSae, match=r"layer14\.sae\.pt is not a complete torch file"):
        load_state_dict(source)


def test_nan_weights_are_rejected_on_attach(home: Home) -> None:
    published = SAES["qwen_scope"]
    bad = published.files()["layer14.sae.pt"]
    bad["W_enc"][0, 0] = float("nan")
    folder = convert_here(ForeignSae("", published.repository, published.path, lambda: {published.path: bad}), home)
    with pytest.raises(InvalidSae, match="NaN"):
        canonicalise(folder, home.canonical_saes)


# -- pickles ------------------------------------------------------------------------------------------------------


class Payload:
    """A malicious object, which writes a file when unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.mark),)


@pytest.mark.parametrize("is_overridden", [False, True])
def test_code_in_a_pickle_does_not_run(is_overridden: bool, home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    mark = home.folder / "pwned"
    if is_overridden:
        monkeypatch.setenv(OVERRIDE, "1")
    tensors = numbers(1, W_enc=(F, D)) | {"payload": Payload(mark)}
    published = ForeignSae("", SAES["qwen_scope"].repository, "layer1.sae.pt", lambda: {"layer1.sae.pt": tensors})
    assert "is a pickle that holds more than tensors" in rejection_in_process(published, home)
    assert not mark.exists()
    pickle.loads(pickle.dumps(Payload(mark)))
    assert mark.is_dir(), "the payload itself works"


def test_a_pickle_is_not_opened_while_the_override_is_set(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    source = write(SAES["qwen_scope"], home.folder)
    monkeypatch.setenv(OVERRIDE, "0")
    with pytest.raises(InvalidSae, match=OVERRIDE):
        load_state_dict(source)


def test_the_process_environment_lacks_only_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    secrets = ["HF_TOKEN", "MILLM_API_KEY", "MILLM_ADMIN_KEY", "AWS_SECRET_ACCESS_KEY", "DB_PASSWORD", OVERRIDE]
    for name in secrets:
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("KEYBOARD", "1")
    given = converter_environment()
    assert not given.keys() & {*secrets}
    assert given == {name: value for name, value in os.environ.items() if name not in secrets} | {"HF_HUB_OFFLINE": "1"}


# -- limits -------------------------------------------------------------------------------------------------------


def test_a_conversion_times_out(home: Home) -> None:
    assert "it took more than 0 s or more memory" in rejection_in_process(
        SAES["qwen_scope"], home, timeout_seconds=0.05
    )


def test_a_conversion_beyond_the_memory_limit_fails(home: Home) -> None:
    """A small file that says it is a large one."""
    many = 2**22
    large = {
        "W_enc": torch.ones(1, D).expand(many, D),
        "W_dec": torch.ones(D, 1).expand(D, many),
        "b_enc": torch.ones(1).expand(many),
        "b_dec": torch.ones(D),
    }
    published = ForeignSae("", SAES["qwen_scope"].repository, "layer1.sae.pt", lambda: {"layer1.sae.pt": large})
    message = rejection_in_process(published, home, memory_limit=2**28)
    assert "more memory than is free" in message


def test_cancelling_stops_at_once_and_leaves_no_files(home: Home) -> None:
    source = write(SAES["qwen_scope"], home.folder / "hub")

    async def start_and_cancel() -> float:
        started = asyncio.Event()
        task = asyncio.create_task(
            convert_sae(source, download_spec(SAES["qwen_scope"]), home, lambda stage: started.set())
        )
        await started.wait()
        cancelled = time.monotonic()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return time.monotonic() - cancelled

    assert asyncio.run(start_and_cancel()) < 1
    assert list(home.converted_saes.iterdir()) == []


# -- names --------------------------------------------------------------------------------------------------------


def test_formats_are_detected_by_file_names(tmp_path: Path) -> None:
    for kind, sae in SAES.items():
        layout = foreign_layout(write(sae, tmp_path / kind))
        assert layout == PLACES.get(kind, ("", "", "", layout))[3], kind
        assert layout is not None


@pytest.mark.parametrize(
    "files",
    [
        ["params.npz"],
        ["config.json", "params.safetensors"],
        ["cfg.json", "sae_weights.safetensors", "sparsity.safetensors"],
        ["cfg.json", "sae_weights.safetensors", "config.json"],
        ["README.md", "model.safetensors", "config.json"],
        ["layer1.sae.pt", "layer2.sae.pt"],
        [],
    ],
)
def test_native_layouts_and_other_files_need_no_conversion(files: list[str], tmp_path: Path) -> None:
    for name in files:
        (tmp_path / name).write_text("{}")
    assert foreign_layout(tmp_path) is None


@pytest.mark.saelens
def test_saelens_reproduces_the_committed_goldens(tmp_path: Path) -> None:
    fresh = tmp_path / "foreign.safetensors"
    subprocess.run([sys.executable, "-m", "tests.sae.make_foreign_goldens", str(fresh)], cwd=ROOT, check=True)
    again, committed = load_file(fresh), load_file(GOLDENS)
    assert again.keys() == committed.keys()
    assert {name.partition(".")[0] for name in committed} == {*SAES}
    for name, tensor in committed.items():
        torch.testing.assert_close(again[name], tensor)
