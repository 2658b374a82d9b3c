"""All layouts of the same weights are read alike."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from millm.demo.bundle import SAE_FOLDER
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
