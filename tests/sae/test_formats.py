"""All layouts of the same weights are read alike; other files are rejected before anything is written."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor

from millm.demo.bundle import SAE_FOLDER
from millm.errors import InvalidSae
from millm.sae.autoencoder import SparseAutoencoder
from millm.sae.formats import canonicalise

D_IN, D_OUT, D_SAE = 6, 5, 10
Cfg = dict[str, Any]


def weights() -> dict[str, Tensor]:
    """A JumpReLU SAE in SAELens' orientation."""
    torch.manual_seed(0)
    return {
        "W_enc": torch.randn(D_IN, D_SAE),
        "W_dec": torch.randn(D_SAE, D_IN),
        "b_enc": torch.randn(D_SAE),
        "b_dec": torch.randn(D_IN),
        "threshold": torch.rand(D_SAE),
    }


def without(tensors: dict[str, Tensor], *names: str) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in tensors.items() if name not in names}


def cfg(**changes: Any) -> Cfg:
    """SAELens version 6."""
    metadata = {"sae_lens_version": "6.54.12", "model_name": "gemma-2-2b", "hook_name": "blocks.3.hook_resid_post"}
    usual = {"architecture": "jumprelu", "d_in": D_IN, "d_sae": D_SAE, "dtype": "float32", "device": "cpu"}
    return usual | {"apply_b_dec_to_input": False, "normalize_activations": "none", "metadata": metadata} | changes


def write(folder: Path, cfg: Cfg, tensors: dict[str, Tensor]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "cfg.json").write_text(json.dumps(cfg))
    save_file(tensors, folder / "sae_weights.safetensors")
    return folder


def write_npz(folder: Path, tensors: dict[str, Any]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    np.savez(folder / "params.npz", **{name: np.asarray(tensor) for name, tensor in tensors.items()})
    return folder


def write_scope_2(folder: Path, tensors: dict[str, Tensor], config: Cfg | None) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    save_file({name.lower(): tensor for name, tensor in tensors.items()}, folder / "params.safetensors")
    if config is not None:
        (folder / "config.json").write_text(json.dumps(config))
    return folder


def opened(source: Path) -> SparseAutoencoder:
    return SparseAutoencoder.open(canonicalise(source, source.parent / "canonical"))


def acts(sae: SparseAutoencoder) -> Tensor:
    return sae.encode(torch.linspace(-3, 3, 4 * D_IN).reshape(4, D_IN))


def expected() -> Tensor:
    """relu(p)·[p > θ], written out."""
    w, x = weights(), torch.linspace(-3, 3, 4 * D_IN).reshape(4, D_IN)
    pre = x @ w["W_enc"] + w["b_enc"]
    return pre.relu() * (pre > w["threshold"])


# --------------------------------------------------------------------------------------- the same in every layout

FLAT = {
    "architecture": "jumprelu",
    "d_in": D_IN,
    "d_sae": D_SAE,
    "model_name": "gpt2-small",
    "hook_point": "blocks.3.hook_resid_pre",
    "hook_point_layer": 3,
    "hook_point_head_index": None,
    "activation_fn_str": "jumprelu",
    "apply_b_dec_to_input": False,
    "normalize_activations": False,
    "dtype": "torch.float32",
    "lr": 0.0003,
}
SCOPE_2 = {
    "architecture": "jump_relu",
    "model_name": "gemma-v3-4b-pt",
    "hf_hook_point_in": "model.layers.3.output",
    "width": D_SAE,
}


def layouts(root: Path) -> dict[str, Path]:
    one_threshold = weights() | {"threshold": torch.full((D_SAE,), 0.5)}
    batch = without(weights(), "threshold") | {"topk_threshold": torch.tensor(0.5, dtype=torch.float64)}
    return {
        "saelens 6": write(root / "6", cfg(), weights()),
        "saelens 5": write(root / "5", FLAT, weights() | {"scaling_factor": torch.ones(D_SAE)}),
        "npz": write_npz(root / "npz", weights()),
        "npz, small letters": write_npz(root / "small", {n.replace("W_", "w_"): t for n, t in weights().items()}),
        "gemma scope 2": write_scope_2(root / "scope2", weights(), SCOPE_2),
        "one threshold": write(root / "one", cfg(), one_threshold),
        "batchtopk": write(root / "batch", cfg(architecture="batchtopk", rescale_acts_by_decoder_norm=False), batch),
    }


def test_all_layouts_of_the_same_weights_encode_alike(tmp_path: Path) -> None:
    activations = {name: acts(opened(folder)) for name, folder in layouts(tmp_path).items()}
    batch, single = activations.pop("batchtopk"), activations.pop("one threshold")
    assert torch.equal(batch, single)
    for name, values in activations.items():
        torch.testing.assert_close(values, expected(), msg=name)
    assert 0 < int((expected() > 0).sum()) < expected().numel()


def test_the_bundled_sae_equals_its_formula(tmp_path: Path) -> None:
    sae = SparseAutoencoder.open(canonicalise(SAE_FOLDER, tmp_path))
    shipped = {name: tensor.float() for name, tensor in load_file(SAE_FOLDER / "sae_weights.safetensors").items()}
    x = torch.randn(30, sae.config.d_in) * 10
    pre = x @ shipped["W_enc"] + shipped["b_enc"]
    torch.testing.assert_close(sae.encode(x), pre.relu() * (pre > shipped["threshold"]))
    assert (sae.config.layer, sae.config.dtype, sae.config.steerable) == (20, "float16", True)


def test_flat_and_nested_configurations(tmp_path: Path) -> None:
    flat = opened(write(tmp_path / "flat", FLAT, weights())).config
    assert (flat.hook_name, flat.layer, flat.model_name) == ("blocks.3.hook_resid_pre", 3, "gpt2-small")
    metadata = {
        "hook_name": "blocks.7.hook_mlp_out",
        "hf_hook_name": "model.layers.7.mlp",
        "exclude_special_tokens": [0, 1],
    }
    nested = opened(write(tmp_path / "nested", cfg(metadata=metadata), weights())).config
    assert (nested.hook_name, nested.hf_hook_name) == ("blocks.7.hook_mlp_out", "model.layers.7.mlp")
    assert nested.exclude_special_tokens


def test_defaults_of_early_configurations_equal_saelens(tmp_path: Path) -> None:
    """Architecture `standard`, b_dec subtracted."""
    early = {"d_in": D_IN, "d_sae": D_SAE, "hook_point": "blocks.3.hook_resid_pre"}
    config = opened(write(tmp_path / "early", early, without(weights(), "threshold"))).config
    assert (config.architecture, config.apply_b_dec_to_input) == ("standard", True)
    assert (config.normalize_activations, config.center_inputs) == ("none", False)


def test_sparse_input_scaling_is_folded_into_the_weights(tmp_path: Path) -> None:
    scaled = cfg(normalize_activations="expected_average_only_in", norm_scaling_factor=0.25, apply_b_dec_to_input=True)
    plain = opened(write(tmp_path / "plain", cfg(apply_b_dec_to_input=True), weights()))
    folded = opened(write(tmp_path / "scaled", scaled, weights()))
    x = torch.randn(5, D_IN)
    torch.testing.assert_close(folded.encode(x), plain.encode(0.25 * x))
    torch.testing.assert_close(folded.reconstruct(x) * 0.25, plain.reconstruct(0.25 * x))


def test_a_batchtopk_checkpoint_ranks_by_decoder_norm(tmp_path: Path) -> None:
    """Trained with pre-activations × ‖W_dec‖ against one threshold: unit rows say the same."""
    w = without(weights(), "threshold") | {"topk_threshold": torch.tensor(2.0, dtype=torch.float64)}
    sae = opened(write(tmp_path / "batch", cfg(architecture="matryoshka_batchtopk", k=4.5), w))
    x = torch.randn(20, D_IN)
    ranked = (x @ w["W_enc"] + w["b_enc"]) * w["W_dec"].norm(dim=-1)
    torch.testing.assert_close(sae.encode(x), ranked.relu() * (ranked > 2.0))
    torch.testing.assert_close(sae.decoder_norms(), torch.ones(D_SAE))
    assert sae.config.architecture == "jumprelu"


@pytest.mark.parametrize("where", ["nested", "flat", "repository"])
def test_centring_is_known_from_the_configuration_or_the_repository(tmp_path: Path, where: str) -> None:
    kwargs = {"model_from_pretrained_kwargs": {"center_writing_weights": True}}
    fields = {"nested": cfg(metadata=kwargs), "flat": FLAT | kwargs, "repository": FLAT}[where]
    repository = "models--jbloom--GPT2-Small-SAEs-Reformatted" if where == "repository" else "mine"
    assert opened(write(tmp_path / repository / "snapshots" / "0" / "sae", fields, weights())).config.center_inputs


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_the_stored_dtype_is_preserved(tmp_path: Path, dtype: torch.dtype) -> None:
    source = write(tmp_path / "half", cfg(), {name: tensor.to(dtype) for name, tensor in weights().items()})
    sae = opened(source)
    assert sae.config.dtype == str(dtype).removeprefix("torch.")
    size = sum(path.stat().st_size for path in (tmp_path / "canonical").rglob("sae.safetensors"))
    assert size < source.joinpath("sae_weights.safetensors").stat().st_size + 500


# ------------------------------------------------------------------------------------------------- Gemma Scope

RES = "gemma-scope-2b-pt-res/layer_12/width_16k/average_l0_82"
CACHED = "models--google--gemma-scope-9b-it-res/snapshots/0123abcd/layer_20/width_16k/average_l0_91"


@pytest.mark.parametrize(
    ("path", "model", "hook", "layer"),
    [
        (f"google/{RES}", "google/gemma-2-2b", "blocks.12.hook_resid_post", 12),
        (CACHED, "google/gemma-2-9b-it", "blocks.20.hook_resid_post", 20),
        (RES.replace("res", "mlp"), "google/gemma-2-2b", "blocks.12.hook_mlp_out", 12),
        (RES.replace("res", "att"), "google/gemma-2-2b", "blocks.12.attn.hook_z", 12),
        ("gemma-scope-2b-pt-res/embedding/width_4k/average_l0_6", "google/gemma-2-2b", "hook_embed", None),
        ("downloads/sae", None, None, None),
    ],
)
def test_gemma_scope_hooks_are_parsed_from_the_path(
    tmp_path: Path, path: str, model: str | None, hook: str | None, layer: int | None
) -> None:
    config = opened(write_npz(tmp_path / path, weights())).config
    assert (config.model_name, config.hook_name, config.layer) == (model, hook, layer)
    assert (config.architecture, config.apply_b_dec_to_input) == ("jumprelu", False)


def test_gemma_scope_transcoders_have_two_hooks(tmp_path: Path) -> None:
    tensors = weights() | {"W_dec": torch.randn(D_SAE, D_OUT), "b_dec": torch.randn(D_OUT)}
    config = opened(write_npz(tmp_path / RES.replace("res", "transcoders"), tensors)).config
    assert (config.architecture, config.d_out, config.steerable) == ("jumprelu_transcoder", D_OUT, False)
    assert (config.hook_name, config.hook_name_out) == ("blocks.12.ln2.hook_normalized", "blocks.12.hook_mlp_out")


def test_an_embedding_sae_reads_scaled_embeddings(tmp_path: Path) -> None:
    sae = opened(write_npz(tmp_path / "gemma-scope-2b-pt-res" / "embedding" / "width_4k", weights()))
    x = torch.linspace(-3, 3, 4 * D_IN).reshape(4, D_IN)
    torch.testing.assert_close(sae.encode(x * D_IN**0.5), expected())


def test_a_cached_snapshot_of_links_is_read(tmp_path: Path) -> None:
    blobs = write_npz(tmp_path / "blobs", weights())
    folder = tmp_path / CACHED
    folder.mkdir(parents=True)
    (folder / "params.npz").symlink_to(blobs / "params.npz")
    assert opened(folder).config.layer == 20


@pytest.mark.parametrize("has_config", [True, False])
def test_gemma_scope_2_skip_transcoders(tmp_path: Path, has_config: bool) -> None:
    tensors = weights() | {"W_dec": torch.randn(D_SAE, D_OUT), "b_dec": torch.randn(D_OUT)}
    skip = torch.randn(D_IN, D_OUT)
    norm = "model.layers.3.{}_feedforward_layernorm.output"
    fields = {
        "hf_hook_point_in": norm.format("pre"),
        "hf_hook_point_out": norm.format("post"),
        "affine_connection": True,
    }
    folder = tmp_path / "gemma-scope-2-4b-pt" / "transcoder_all" / "layer_3_width_16k_l0_big_affine"
    write_scope_2(folder, tensors | {"affine_skip_connection": skip}, SCOPE_2 | fields if has_config else None)
    sae = opened(folder)
    assert sae.config.architecture == "jumprelu_skip_transcoder"
    assert (sae.config.hf_hook_name, sae.config.hook_name) == (norm.format("pre"), None)
    assert sae.config.hook_name_out == "blocks.3.hook_mlp_out"
    x = torch.randn(4, D_IN)
    written = sae.encode(x) @ tensors["W_dec"] + tensors["b_dec"] + x @ skip
    torch.testing.assert_close(sae.reconstruct(x), written)


def test_gemma_scope_2_model_names_are_hugging_face_ids(tmp_path: Path) -> None:
    config = opened(write_scope_2(tmp_path / "sae", weights(), SCOPE_2)).config
    assert (config.model_name, config.hf_hook_name) == ("google/gemma-3-4b-pt", "model.layers.3.output")
    assert (config.hook_name, config.layer, config.architecture) == ("blocks.3.hook_resid_post", 3, "jumprelu")


# ----------------------------------------------------------------------------------------------------- miStudio

MISTUDIO = {
    "model_name": "gemma-2-2b",
    "hook_point": "blocks.3.hook_resid_post",
    "hook_name": "blocks.3.hook_resid_post",
    "hook_point_layer": 3,
    "d_in": D_IN,
    "d_sae": D_SAE,
    "architecture": "standard",
    "activation_fn_str": "relu",
    "normalize_activations": "constant_norm_rescale",
    "apply_b_dec_to_input": False,
    "dtype": "torch.float32",
    "mistudio_training_id": "train_1",
    "extra_metadata": {"hf_model_name": "google/gemma-2-2b", "top_k_sparsity": 25.0},
}


@pytest.mark.parametrize(
    ("folder", "model", "module"),
    [
        ("layer_3_residual", "google/gemma-2-2b", "model.layers.3.post_attention_layernorm.output"),
        ("layer_3", "meta-llama/Llama-3.2-1B", "model.layers.3.post_attention_layernorm.output"),
        ("layer_5_mlp", "google/gemma-2-2b", "model.layers.5.mlp.output"),
        ("layer_3_attention", "google/gemma-2-2b", "model.layers.3.self_attn.output"),
        ("layer_3_residual", "openai-community/gpt2", "transformer.h.3.ln_2.output"),
        ("layer_3_attention", "openai-community/gpt2", "transformer.h.3.attn.output"),
        ("layer_3_residual", "LiquidAI/LFM2-1.2B", "model.layers.3.operator_norm.output"),
        ("renamed", "google/gemma-2-2b", "model.layers.3.post_attention_layernorm.output"),
    ],
)
def test_mistudio_hook_differs_from_the_recorded_one(tmp_path: Path, folder: str, model: str, module: str) -> None:
    fields = MISTUDIO | {"extra_metadata": {"hf_model_name": model}}
    config = opened(write(tmp_path / folder, fields, without(weights(), "threshold"))).config
    assert (config.hf_hook_name, config.hook_name) == (module, None)
    assert (config.source_format, config.normalize_activations) == ("mistudio", "constant_norm_rescale")


def test_mistudio_k_is_a_percentage(tmp_path: Path) -> None:
    fields = MISTUDIO | {"activation_fn_str": "topk"}
    config = opened(write(tmp_path / "layer_3_residual", fields, without(weights(), "threshold"))).config
    assert (config.architecture, config.k) == ("topk", 2)


# ----------------------------------------------------------------------------------------------------- refusals

TOPK = without(weights(), "threshold")
UNFOLDED = "expected_average_only_in"
BAD_CFGS: list[tuple[Cfg, dict[str, Tensor], str]] = [
    (cfg(architecture="temporal"), weights(), "architecture 'temporal' is not supported; supported are standard"),
    (cfg(architecture="matching_pursuit"), weights(), "'matching_pursuit' is not supported"),
    (cfg(architecture="crosscoder"), weights(), "'crosscoder' is not supported"),
    (cfg(architecture="skip"), weights(), "'skip' is not supported"),
    (cfg(architecture="topk"), TOPK, "needs k"),
    (cfg(architecture="topk", k=0), TOPK, "k is 0; it must be 1 to d_sae 10"),
    (cfg(architecture="topk", k=D_SAE + 1), TOPK, "k is 11"),
    (cfg(architecture="topk", k=2.5), TOPK, "k is 2.5; it must be an integer"),
    (FLAT | {"architecture": "standard", "activation_fn_str": "topk"}, TOPK, "needs k"),
    (FLAT | {"architecture": "gated", "activation_fn_str": "topk"}, weights(), "'topk' does not go with 'gated'"),
    (FLAT | {"activation_fn_str": "tanh-relu"}, weights(), "activation function 'tanh-relu'"),
    (cfg(normalize_activations=UNFOLDED), weights(), "needs a positive scaling_factor"),
    (cfg(normalize_activations=True), weights(), "needs a positive scaling_factor"),
    (cfg(normalize_activations=UNFOLDED, scaling_factor=0), weights(), "needs a positive scaling_factor"),
    (cfg(normalize_activations="covariance_whitening"), weights(), "'covariance_whitening' is not supported"),
    (cfg(d_in=D_IN + 1), weights(), r"tensor W_enc_T has shape \[10, 6\]; the configuration says \[10, 7\]"),
    (cfg(d_sae=D_SAE * 2), weights(), "tensor W_enc_T has shape"),
    (cfg(d_sae="many"), weights(), r"Expected `int`, got `str` - at `\$.d_sae`"),
    (cfg(d_sae=10**30), weights(), "d_sae"),
    (cfg(metadata={"hook_head_index": 4}), weights(), "hook_head_index 4"),
    (cfg(architecture="transcoder", apply_b_dec_to_input=True), TOPK, "apply_b_dec_to_input"),
    (cfg(), without(weights(), "b_enc"), "tensor b_enc is missing"),
    (cfg(), without(weights(), "W_enc"), "tensor W_enc is missing"),
    (cfg(), without(weights(), "threshold"), "tensor threshold is missing"),
    (cfg(architecture="standard"), weights(), "'threshold' is not part of architecture 'standard'"),
    (cfg(), weights() | {"W_dec": torch.randn(D_SAE, D_IN, 2)}, "tensor W_dec has shape"),
    (cfg(), weights() | {"b_enc": torch.arange(D_SAE)}, "tensor b_enc has type torch.int64"),
    (cfg(), weights() | {"topk_threshold": torch.ones(())}, "'topk_threshold' is not part of"),
    (cfg(architecture="batchtopk"), TOPK, "tensor threshold is missing"),
    (cfg(), weights() | {"scaling_factor": torch.full((D_SAE,), 2.0)}, "scaling_factor"),
    (cfg(), weights() | {"W_enc": torch.full((D_IN, D_SAE), torch.nan)}, "tensor W_enc_T holds NaN"),
    (cfg(), weights() | {"b_dec": torch.full((D_IN,), torch.inf)}, "tensor b_dec holds NaN or infinite"),
    (MISTUDIO | {"activation_fn_str": "topk", "extra_metadata": None}, TOPK, "top_k_sparsity is missing"),
    (MISTUDIO | {"extra_metadata": [1]}, TOPK, "extra_metadata"),
]


@pytest.mark.parametrize(("cfg", "tensors", "message"), BAD_CFGS, ids=[message for *_, message in BAD_CFGS])
def test_unsupported_files_are_rejected_by_name(
    tmp_path: Path, cfg: Cfg, tensors: dict[str, Tensor], message: str
) -> None:
    assert_refused(write(tmp_path / "source", cfg, tensors), message)


def assert_refused(source: Path, message: str) -> None:
    """By name, on one line without a path, and with nothing written."""
    root = source.parent / "canonical"
    with pytest.raises(InvalidSae, match=message) as refusal:
        canonicalise(source, root)
    assert str(source.parent) not in refusal.value.message
    assert "\n" not in refusal.value.message
    assert not root.exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"[]", "cfg.json must hold a JSON object"),
        (b"{", "cfg.json cannot be read as JSON"),
        (b'{"d_in": NaN}', "cfg.json cannot be read as JSON"),
        (b'{"\xff": 1}', "cfg.json cannot be read as JSON"),
        (b'{"a":' + b"[" * 100_000, "cfg.json cannot be read as JSON"),
        (b"", "cfg.json cannot be read as JSON"),
        (b"{}", "missing required field `d_in`"),
    ],
)
def test_a_broken_configuration_is_rejected(tmp_path: Path, content: bytes, message: str) -> None:
    source = write(tmp_path / "source", cfg(), weights())
    (source / "cfg.json").write_bytes(content)
    assert_refused(source, message)


@pytest.mark.parametrize("keep", [0, 4, 60, 300, -1])
def test_truncated_safetensors_are_rejected(tmp_path: Path, keep: int) -> None:
    source = write(tmp_path / "source", cfg(), weights())
    path = source / "sae_weights.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    assert_refused(source, "sae_weights.safetensors is not a complete safetensors file")


@pytest.mark.parametrize("keep", [0, 4, 300, -1, -40])
def test_truncated_npz_is_rejected(tmp_path: Path, keep: int) -> None:
    path = write_npz(tmp_path / "source", weights()) / "params.npz"
    path.write_bytes(path.read_bytes()[:keep])
    assert_refused(tmp_path / "source", "params.npz is not a complete npz file")


class Malicious:
    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path(os.environ["MILLM_TEST_TRACE"]),))


def test_an_npz_of_objects_is_rejected_and_does_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trace = tmp_path / "trace"
    monkeypatch.setenv("MILLM_TEST_TRACE", str(trace))
    objects = np.array([Malicious()], dtype=object)
    (tmp_path / "source").mkdir()
    np.savez(tmp_path / "source" / "params.npz", allow_pickle=True, W_enc=objects)
    assert_refused(tmp_path / "source", "params.npz is not a complete npz file of plain numbers")
    assert not trace.exists()


def test_other_npz_contents_are_rejected(tmp_path: Path) -> None:
    assert_refused(write_npz(tmp_path / "a", weights() | {"extra": torch.ones(1)}), "'extra' is not part of")
    assert_refused(write_npz(tmp_path / "b", {"W_enc": np.array(["text"])}), "tensor W_enc has type <U4")
    assert_refused(write_npz(tmp_path / "c", weights() | {"W_dec": torch.ones(3)}), "tensor W_dec must be a matrix")
    assert_refused(write_npz(tmp_path / "d", without(weights(), "threshold")), "tensor threshold is missing")


@pytest.mark.parametrize("name", ["ae.pt", "sae.pth", "pytorch_model.bin"])
def test_pickles_are_never_opened(tmp_path: Path, name: str) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / name).write_bytes(b"\x80\x04.")
    (source / "cfg.json").write_text(json.dumps(cfg()))
    assert_refused(source, f"{name} is a pickle.* convert it to safetensors")


def test_a_folder_without_an_sae_is_rejected(tmp_path: Path) -> None:
    assert_refused(tmp_path / "absent", "'absent' cannot be read: No such file")
    (tmp_path / "file").touch()
    assert_refused(tmp_path / "file", "cannot be read: Not a directory")
    (tmp_path / "empty").mkdir()
    assert_refused(tmp_path / "empty", "must hold sae_weights.safetensors or params.npz or params.safetensors")
    source = write(tmp_path / "half", cfg(), weights())
    (source / "cfg.json").unlink()
    assert_refused(source, "cfg.json is missing")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"architecture": "relu"}, "architecture"),
        ({"affine_connection": True}, "affine_connection is True"),
        ({"hf_hook_point_in": 3}, "hf_hook_point_in"),
        (None, "config.json is missing"),
    ],
)
def test_other_gemma_scope_2_configurations_are_rejected(tmp_path: Path, fields: Cfg | None, message: str) -> None:
    config = None if fields is None else SCOPE_2 | fields
    assert_refused(write_scope_2(tmp_path / "source", weights(), config), message)


def test_a_cross_layer_transcoder_is_rejected(tmp_path: Path) -> None:
    tensors = weights() | {"W_dec": torch.randn(D_SAE, 3, D_IN)}
    assert_refused(write_scope_2(tmp_path / "source", tensors, SCOPE_2), "tensor W_dec must be a matrix")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
KEYS = sorted(
    {*cfg(), *cfg()["metadata"], *FLAT, *MISTUDIO, "k", "scaling_factor", "activation_fn_kwargs", "hook_head_index"}
    | {"model_from_pretrained_kwargs", "exclude_special_tokens", "reshape_activations", "rescale_acts_by_decoder_norm"}
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    base=st.sampled_from([cfg(), FLAT, MISTUDIO, SCOPE_2]),
    changes=st.dictionaries(st.sampled_from(KEYS), JSON, min_size=1, max_size=3),
    nested=st.booleans(),
)
def test_a_configuration_of_wrong_types_is_rejected_or_read(
    tmp_path: Path, base: Cfg, changes: Cfg, nested: bool
) -> None:
    shutil.rmtree(tmp_path / "canonical", ignore_errors=True)
    changed = base | ({"metadata": changes} if nested else changes)
    source = write(tmp_path / "source", changed, weights())
    try:
        sae = opened(source)
    except InvalidSae:
        assert not (tmp_path / "canonical").exists()
    else:
        assert sae.config.d_in == D_IN
        assert sae.encode(torch.ones(1, D_IN)).isfinite().all()


def pristine_copy(tmp_path: Path, layout: str) -> Path:
    if not (tmp_path / "pristine").exists():
        layouts(tmp_path / "pristine")
    shutil.rmtree(tmp_path / "source", ignore_errors=True)
    return shutil.copytree(tmp_path / "pristine" / layout, tmp_path / "source")


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(layout=st.sampled_from(["6", "npz", "scope2"]), data=st.data())
def test_a_file_with_one_changed_byte_is_rejected_or_read(tmp_path: Path, layout: str, data: st.DataObject) -> None:
    shutil.rmtree(tmp_path / "canonical", ignore_errors=True)
    source = pristine_copy(tmp_path, layout)
    path = data.draw(st.sampled_from(sorted(source.iterdir())))
    content = bytearray(path.read_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    try:
        opened(source)
    except InvalidSae:
        assert not (tmp_path / "canonical").exists()


# -------------------------------------------------------------------------------------------------- our own copy


def test_the_copy_is_written_once_and_named_by_its_content(tmp_path: Path) -> None:
    source, root = write(tmp_path / "source", cfg(), weights()), tmp_path / "canonical"
    first = canonicalise(source, root)
    before = (first / "sae.safetensors").stat()
    assert canonicalise(source, root) == first
    assert (first / "sae.safetensors").stat() == before
    write(source, cfg(apply_b_dec_to_input=True), weights())
    second = canonicalise(source, root)
    write(source, cfg(), weights() | {"b_dec": torch.zeros(D_IN)})
    third = canonicalise(source, root)
    assert sorted(root.iterdir()) == sorted({first, second, third})
    assert len(first.name) == 16


def test_the_sha256_is_that_of_the_weights_file(tmp_path: Path) -> None:
    source = write(tmp_path / "source", cfg(), weights())
    weights_file = source / "sae_weights.safetensors"
    listing = subprocess.run(["sha256sum", weights_file], capture_output=True, check=True, text=True)
    assert opened(source).sha256 == listing.stdout.split()[0]


@pytest.mark.parametrize("damage", ["sae.safetensors", "config.json"])
def test_a_damaged_copy_is_rejected_and_written_again(tmp_path: Path, damage: str) -> None:
    source = write(tmp_path / "source", cfg(), weights())
    folder = canonicalise(source, tmp_path / "canonical")
    (folder / damage).write_bytes((folder / damage).read_bytes()[:-20])
    with pytest.raises(InvalidSae):
        SparseAutoencoder.open(folder)
    torch.testing.assert_close(acts(opened(source)), expected())


def test_another_version_of_the_copy_is_not_read(tmp_path: Path) -> None:
    folder = canonicalise(write(tmp_path / "source", cfg(), weights()), tmp_path / "canonical")
    header = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(header | {"millm_sae": 2}))
    with pytest.raises(InvalidSae, match="millm_sae"):
        SparseAutoencoder.open(folder)


CONVERT = """
import sys
from pathlib import Path
from millm.sae.formats import canonicalise
canonicalise(Path(sys.argv[1]), Path(sys.argv[2]))
"""


def test_a_killed_conversion_leaves_no_usable_copy(tmp_path: Path) -> None:
    width, features = 768, 16384
    large = {
        "W_enc": torch.randn(width, features),
        "W_dec": torch.randn(features, width),
        "b_enc": torch.zeros(features),
        "b_dec": torch.zeros(width),
    }
    source = write(tmp_path / "source", cfg(architecture="standard", d_in=width, d_sae=features), large)
    root = tmp_path / "canonical"
    process = subprocess.Popen([sys.executable, "-c", CONVERT, source, root])
    while not list(root.glob(".partial-*")) and process.poll() is None:
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert [path.name[:9] for path in root.iterdir()] == [".partial-"]
    folder = canonicalise(source, root)
    assert list(root.iterdir()) == [folder]
    x = torch.randn(2, width)
    expected = (x @ large["W_enc"]).relu()
    torch.testing.assert_close(SparseAutoencoder.open(folder).encode(x), expected, rtol=1e-4, atol=1e-3)
