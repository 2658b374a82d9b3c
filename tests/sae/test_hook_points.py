"""The hook table of each family against arithmetic: sums over layers, and where a delta must appear."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText, PreTrainedModel

from millm.errors import SaeMismatch
from millm.sae.hook_points import LENS_NAMES
from millm.sae.hooks import HookPoint, capture, decoder_layers, resolve_hook_point, width_at

WIDTH = 32
IDS = [[5, 6, 7, 8, 9], [11, 3, 12, 4, 13]]

SPECIAL = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
COMMON = {"vocab_size": 97, "hidden_size": WIDTH, "num_hidden_layers": 3, "num_attention_heads": 4, **SPECIAL}
LLAMA_LIKE = COMMON | {"intermediate_size": 64, "num_key_value_heads": 2, "max_position_embeddings": 64}
GEMMA_LIKE = LLAMA_LIKE | {"head_dim": 8, "query_pre_attn_scalar": 8, "sliding_window": 16}
EXPERTS = {"num_local_experts": 4, "num_experts_per_tok": 2}
GPT_LIKE = {"vocab_size": 97, "n_embd": WIDTH, "n_layer": 3, "n_head": 4, "n_positions": 64, **SPECIAL}
NEOX = COMMON | {"intermediate_size": 64, "max_position_embeddings": 64}

PARALLEL = {"resid_mid"}
"""Kinds that are missing when attention and MLP run in parallel."""

FAMILIES: dict[str, tuple[str, dict[str, Any], set[str]]] = {
    # name: (model type, its config, kinds it does not have)
    "gemma": ("gemma", LLAMA_LIKE | {"head_dim": 8}, set()),
    "gemma2": ("gemma2", GEMMA_LIKE, set()),
    "gemma3": ("gemma3_text", GEMMA_LIKE, set()),
    "gemma3_multimodal": (
        "gemma3",
        {
            "text_config": GEMMA_LIKE,
            "vision_config": {
                "model_type": "siglip_vision_model",
                "hidden_size": 16,
                "intermediate_size": 32,
                "num_hidden_layers": 3,
                "num_attention_heads": 2,
                "image_size": 28,
                "patch_size": 14,
            },
            "mm_tokens_per_image": 1,
            "image_token_index": 96,
            "boi_token_index": 94,
            "eoi_token_index": 95,
        },
        set(),
    ),
    "llama": ("llama", LLAMA_LIKE, set()),
    "mistral": ("mistral", LLAMA_LIKE, set()),
    "mixtral": ("mixtral", LLAMA_LIKE | EXPERTS, set()),
    "qwen2": ("qwen2", LLAMA_LIKE, set()),
    "qwen2_moe": (
        "qwen2_moe",
        LLAMA_LIKE | {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16},
        set(),
    ),
    "qwen3": ("qwen3", LLAMA_LIKE | {"head_dim": 8}, set()),
    "qwen3_moe": (
        "qwen3_moe",
        LLAMA_LIKE | {"head_dim": 8, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16},
        set(),
    ),
    "phi3": ("phi3", LLAMA_LIKE, set()),
    "smollm3": ("smollm3", LLAMA_LIKE, set()),
    "starcoder2": ("starcoder2", LLAMA_LIKE, set()),
    "stablelm": ("stablelm", LLAMA_LIKE, set()),
    "stablelm_parallel": ("stablelm", LLAMA_LIKE | {"use_parallel_residual": True}, PARALLEL),
    "gpt_oss": ("gpt_oss", LLAMA_LIKE | EXPERTS | {"head_dim": 8, "sliding_window": 16}, set()),
    "olmo2": ("olmo2", LLAMA_LIKE, {"mlp_in"}),
    "olmo3": ("olmo3", LLAMA_LIKE | {"sliding_window": 16}, {"mlp_in"}),
    "phi": ("phi", LLAMA_LIKE, PARALLEL),
    "cohere": ("cohere", LLAMA_LIKE, PARALLEL),
    "gpt2": ("gpt2", GPT_LIKE, set()),
    "gptj": ("gptj", GPT_LIKE | {"rotary_dim": 4}, PARALLEL),
    "gpt_neo": (
        "gpt_neo",
        {
            "vocab_size": 97,
            "hidden_size": WIDTH,
            "num_layers": 3,
            "num_heads": 4,
            "attention_types": [[["global"], 3]],
            "max_position_embeddings": 64,
            **SPECIAL,
        },
        set(),
    ),
    "gpt_neox": ("gpt_neox", NEOX, PARALLEL),
    "gpt_neox_sequential": ("gpt_neox", NEOX | {"use_parallel_residual": False}, set()),
    "falcon": ("falcon", COMMON, PARALLEL),
    "falcon_sequential": ("falcon", COMMON | {"parallel_attn": False}, set()),
    "falcon_two_norms": ("falcon", COMMON | {"new_decoder_architecture": True, "num_kv_heads": 2}, PARALLEL),
    "bloom": ("bloom", {"vocab_size": 97, "hidden_size": WIDTH, "n_layer": 3, "n_head": 4, **SPECIAL}, set()),
    "opt": (
        "opt",
        COMMON | {"ffn_dim": 64, "max_position_embeddings": 64, "word_embed_proj_dim": WIDTH},
        {"resid_mid", "mlp_out", "mlp_in"},
    ),
}
SECOND_NORM = {"gemma2", "gemma3", "gemma3_multimodal", "olmo2", "olmo3"}


@pytest.fixture(scope="module", params=FAMILIES)
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def model(family: str) -> PreTrainedModel:
    torch.manual_seed(0)
    kind, values, _ = FAMILIES[family]
    build = AutoModelForImageTextToText if family == "gemma3_multimodal" else AutoModelForCausalLM
    model = build.from_config(AutoConfig.for_model(kind, **values)).eval()
    with torch.no_grad():
        for weight in model.parameters():
            # far from their initial 1, 0 and 0.02, so that every module matters
            weight.add_(torch.randn_like(weight) * (0.3 if weight.dim() == 1 else 0.2))
    return model


def point(model: PreTrainedModel, kind: str, layer: int = 1) -> HookPoint:
    return resolve_hook_point(model, f"blocks.{layer}.{LENS_NAMES[kind]}")


def has(family: str, kind: str) -> bool:
    return kind not in FAMILIES[family][2]


def read(model: PreTrainedModel, *kinds: str) -> list[Tensor]:
    points = [point(model, kind) for kind in kinds]
    seen = capture(model, points, IDS[0])
    return [seen[p.name] for p in points]


def close(a: Tensor, b: Tensor) -> None:
    """Equal up to the rounding of one addition in another order."""
    torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5 * b.abs().max().item())


def test_exactly_the_listed_kinds_are_missing(family: str, model: PreTrainedModel) -> None:
    for kind in LENS_NAMES:
        if has(family, kind):
            assert point(model, kind).kind == kind
        else:
            with pytest.raises(SaeMismatch, match="do not compute it"):
                point(model, kind)


def test_attention_and_mlp_add_up_to_the_layer(family: str, model: PreTrainedModel) -> None:
    pre, attention, post = read(model, "resid_pre", "attn_out", "resid_post")
    assert pre.shape == attention.shape == post.shape == (5, WIDTH)
    if has(family, "mlp_out"):
        (mlp,) = read(model, "mlp_out")
        close(pre + attention + mlp, post)
        assert min(t.abs().max() for t in (attention, mlp)) > 1e-3  # nothing agrees by being nothing
    if has(family, "resid_mid"):
        (middle,) = read(model, "resid_mid")
        close(pre + attention, middle)


def test_each_layer_input_is_the_previous_output(model: PreTrainedModel) -> None:
    points = [point(model, kind, layer) for layer in range(3) for kind in ("resid_pre", "resid_post")]
    seen = capture(model, points, IDS[0])
    for layer in range(2):
        assert torch.equal(seen[f"blocks.{layer}.hook_resid_post"], seen[f"blocks.{layer + 1}.hook_resid_pre"])


def test_hook_z_is_the_input_of_the_output_projection(family: str, model: PreTrainedModel) -> None:
    heads, attention = read(model, "hook_z", "attn_out")
    with torch.no_grad():
        projected = point(model, "hook_z").module(heads)
        if family in SECOND_NORM:
            projected = point(model, "attn_out").module(projected)
    close(projected, attention)


def test_a_delta_appears_downstream_only(family: str, model: PreTrainedModel) -> None:
    """Mid-layer and on the attention's contribution a delta means the same; after the layer it is simply there."""
    delta = torch.linspace(-1, 1, WIDTH)

    def after(kind: str) -> Tensor:
        with point(model, kind).register(lambda x: x + delta):
            (post,) = read(model, "resid_post")
        return post

    (plain,) = read(model, "resid_post")
    if has(family, "mlp_out"):
        close(after("mlp_out"), plain + delta)
    if has(family, "resid_mid"):
        close(after("resid_mid"), after("attn_out"))
        assert (after("resid_mid") - plain).abs().max() > 0.1
    elif has(family, "mlp_out"):
        close(after("attn_out"), plain + delta)  # side by side: the MLP does not see it


def test_all_rows_are_hooked_and_no_hook_remains(family: str, model: PreTrainedModel) -> None:
    before = _logits(model)
    for kind in filter(lambda kind: has(family, kind), LENS_NAMES):
        with point(model, kind).register(_louder):
            change = (_logits(model) - before).abs().amax(dim=(1, 2))  # [2]
        assert change.min() > 1e-4, kind
    assert torch.equal(_logits(model), before)
    assert not any(m._forward_pre_hooks for m in model.modules())
    assert not any(_louder in _functions(m) for m in model.modules())


def test_widths_are_those_of_the_tensors(model: PreTrainedModel) -> None:
    for kind in ("resid_pre", "resid_post", "attn_out"):
        assert width_at(model, point(model, kind)) == WIDTH


def test_a_tensor_without_a_batch_dimension_is_rejected() -> None:
    kind, values, _ = FAMILIES["opt"]
    opt = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **values)).eval()
    with pytest.raises(SaeMismatch, match=r"\[batch, tokens, width\]"):
        width_at(opt, resolve_hook_point(opt, "layers.1.fc2.output"))


def test_the_text_layers_of_a_multimodal_model_are_found(model: PreTrainedModel, family: str) -> None:
    assert len(decoder_layers(model)) == 3
    if family == "gemma3_multimodal":
        assert decoder_layers(model) is model.model.language_model.layers


def _louder(x: Tensor) -> Tensor:
    return x + torch.linspace(-1, 1, x.shape[-1])


def _logits(model: PreTrainedModel) -> Tensor:
    with torch.no_grad():
        return model(input_ids=torch.tensor(IDS)).logits


def _functions(module: torch.nn.Module) -> list[Callable[..., Any]]:
    return [argument for hook in module._forward_hooks.values() for argument in getattr(hook, "args", ())]
