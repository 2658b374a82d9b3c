"""Tiny random models and SAEs under the ids of the recipes, with the layers and features that the recipes use."""

import json
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
)

from tests.fixtures.tiny import CONTEXT, write_tokenizer

GATED = {"google/gemma-2-2b", "google/gemma-2-2b-it", "meta-llama/Llama-3.1-8B"}
WIDTH = 64
"""The smallest width that is packed in 4 bits on a CPU."""
FEW = 1024
"""Features of SAEs whose recipe names only small indices."""
_IDS = {"vocab_size": 400, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
_SHAPE = {
    "hidden_size": WIDTH, "intermediate_size": 128, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 32,
    "max_position_embeddings": CONTEXT,
}  # fmt: skip


def write_standins(root: Path) -> Path:
    """Write all of them below `root`: some seconds, 20 MB."""
    gemma = Gemma2Config(num_hidden_layers=21, query_pre_attn_scalar=16, sliding_window=128, **_SHAPE, **_IDS)
    _write(root / "google/gemma-2-2b", Gemma2ForCausalLM(gemma))
    _write(root / "google/gemma-2-2b-it", Gemma2ForCausalLM(gemma))
    _write(root / "meta-llama/Llama-3.1-8B", LlamaForCausalLM(LlamaConfig(num_hidden_layers=16, **_SHAPE, **_IDS)))
    gpt2 = GPT2Config(n_embd=WIDTH, n_layer=9, n_head=2, n_positions=CONTEXT, **_IDS)
    _write(root / "openai-community/gpt2", GPT2LMHeadModel(gpt2))
    scope = root / "google/gemma-scope-2b-pt-res"
    _write_scope(scope / "layer_20/width_16k/average_l0_71", 16384)
    _write_scope(scope / "layer_12/width_16k/average_l0_82", FEW)
    _write_llama_scope(root / "fnlp/Llama3_1-8B-Base-LXR-8x/Llama3_1-8B-Base-L15R-8x")
    _write_flat_saelens(root / "jbloom/GPT2-Small-SAEs-Reformatted/blocks.8.hook_resid_pre")
    return root


def _write(folder: Path, model: PreTrainedModel) -> None:
    """With a chat template if the real model has one."""
    folder.mkdir(parents=True)
    write_tokenizer(folder)
    if not folder.name.endswith("-it"):
        config = json.loads((folder / "tokenizer_config.json").read_text("utf-8"))
        del config["chat_template"]
        (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    torch.manual_seed(0)
    with torch.no_grad():
        for weights in model.parameters():
            if weights.ndim > 1:
                weights.normal_(0, 0.2)
    model.save_pretrained(folder)


def _tensors(features: int) -> dict[str, Tensor]:
    """The first features are the axes in both directions, exact; the others are rarely active."""
    axes = torch.eye(WIDTH)
    others = torch.randn(features - 2 * WIDTH, WIDTH, generator=torch.Generator().manual_seed(1))
    decoder = torch.cat([axes, -axes, others / others.norm(dim=-1, keepdim=True)])
    return {
        "W_enc": decoder.T.contiguous(),
        "b_enc": torch.zeros(features),
        "W_dec": decoder,
        "b_dec": torch.zeros(WIDTH),
    }


def _write_scope(folder: Path, features: int) -> None:
    folder.mkdir(parents=True)
    threshold = torch.full((features,), 5.0)
    tensors = _tensors(features) | {"threshold": threshold}
    np.savez(folder / "params.npz", **{name: tensor.numpy() for name, tensor in tensors.items()})


def _write_llama_scope(folder: Path) -> None:
    (folder / "checkpoints").mkdir(parents=True)
    tensors = _tensors(FEW)
    renamed = {
        "encoder.weight": tensors["W_enc"].T.contiguous(),
        "encoder.bias": tensors["b_enc"],
        "decoder.weight": tensors["W_dec"].T.contiguous(),
        "decoder.bias": tensors["b_dec"],
    }
    save_file(renamed, folder / "checkpoints/final.safetensors")
    config = {
        "d_model": WIDTH, "d_sae": FEW, "jump_relu_threshold": 0.5, "hook_point_in": "blocks.15.hook_resid_post",
        "dataset_average_activation_norm": {"in": 10.0, "out": 10.0},
    }  # fmt: skip
    (folder / "hyperparams.json").write_text(json.dumps(config), encoding="utf-8")


def _write_flat_saelens(folder: Path) -> None:
    """The layout of SAELens before version 6."""
    folder.mkdir(parents=True)
    save_file(_tensors(FEW), folder / "sae_weights.safetensors")
    config = {
        "architecture": "standard", "d_in": WIDTH, "d_sae": FEW, "dtype": "torch.float32", "device": "cpu",
        "model_name": "gpt2-small", "hook_name": "blocks.8.hook_resid_pre", "hook_layer": 8,
        "activation_fn_str": "relu", "apply_b_dec_to_input": True, "normalize_activations": "none",
        "prepend_bos": True, "context_size": 128,
    }  # fmt: skip
    (folder / "cfg.json").write_text(json.dumps(config), encoding="utf-8")


def write_own_sae(folder: Path) -> Path:
    """The output of `SAE.save_model` of SAELens 6, for the tiny gemma-2-2b."""
    folder.mkdir(parents=True)
    save_file(_tensors(FEW), folder / "sae_weights.safetensors")
    config = {
        "architecture": "standard", "d_in": WIDTH, "d_sae": FEW, "dtype": "float32", "device": "cpu",
        "apply_b_dec_to_input": True, "normalize_activations": "none", "reshape_activations": "none",
        "metadata": {
            "sae_lens_version": "6.54.12", "model_name": "gemma-2-2b", "hook_name": "blocks.12.hook_resid_post",
        },
    }  # fmt: skip
    (folder / "cfg.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


def write_mistudio_sae(folder: Path) -> Path:
    """miStudio's export `community_format/layer_12_residual`."""
    folder.mkdir(parents=True)
    save_file(_tensors(FEW), folder / "sae_weights.safetensors")
    config = {
        "model_name": "gemma-2-2b", "hook_name": "blocks.12.hook_resid_post", "hook_point_layer": 12, "d_in": WIDTH,
        "d_sae": FEW, "architecture": "standard", "activation_fn_str": "relu", "dtype": "torch.float32",
        "normalize_activations": "constant_norm_rescale", "apply_b_dec_to_input": False,
        "mistudio_training_id": "train_1", "extra_metadata": {"hf_model_name": "google/gemma-2-2b"},
    }  # fmt: skip
    (folder / "cfg.json").write_text(json.dumps(config), encoding="utf-8")
    return folder
