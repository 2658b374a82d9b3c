"""Tiny random models of many architectures, with the windows, caps and experts that make them differ."""

from copy import deepcopy

import torch
from transformers import (
    AutoModelForCausalLM,
    BloomConfig,
    FalconConfig,
    Gemma2Config,
    Gemma3TextConfig,
    GPT2Config,
    GPTJConfig,
    GPTNeoXConfig,
    GptOssConfig,
    LlamaConfig,
    MambaConfig,
    MistralConfig,
    MixtralConfig,
    Olmo2Config,
    OPTConfig,
    Phi3Config,
    PreTrainedConfig,
    PreTrainedModel,
    Qwen2Config,
    Qwen3_5TextConfig,
    Qwen3Config,
    Qwen3MoeConfig,
)

SIZE = {"vocab_size": 128, "hidden_size": 32, "num_hidden_layers": 3, "max_position_embeddings": 128}
HEADS = {"intermediate_size": 64, "num_attention_heads": 4, "num_key_value_heads": 2}
IDS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
LONGROPE = {
    "rope_type": "longrope", "rope_theta": 1e4, "short_factor": [1.0] * 4, "long_factor": [2.0] * 4,
    "original_max_position_embeddings": 32,
}  # fmt: skip

BATCHED: dict[str, PreTrainedConfig] = {
    "llama": LlamaConfig(**SIZE, **HEADS, **IDS),
    "gemma2": Gemma2Config(**SIZE, **HEADS, **IDS, head_dim=8, sliding_window=8, attn_logit_softcapping=2.0),
    "gemma3": Gemma3TextConfig(**SIZE, **HEADS, **IDS, head_dim=8, sliding_window=8),
    "gpt2": GPT2Config(vocab_size=128, n_embd=32, n_layer=3, n_head=4, n_positions=128, **IDS),
    "gptj": GPTJConfig(vocab_size=128, n_embd=32, n_layer=3, n_head=4, n_positions=128, rotary_dim=8, **IDS),
    "gpt_neox": GPTNeoXConfig(**SIZE, **IDS, intermediate_size=64, num_attention_heads=4),
    "gpt_oss": GptOssConfig(
        **SIZE, **HEADS, **IDS, head_dim=8, num_local_experts=4, num_experts_per_tok=2, sliding_window=8
    ),
    "mistral": MistralConfig(**SIZE, **HEADS, **IDS, sliding_window=8),
    "mixtral": MixtralConfig(**SIZE, **HEADS, **IDS, num_local_experts=4),
    "olmo2": Olmo2Config(**SIZE, **HEADS, **IDS),
    "opt": OPTConfig(
        vocab_size=128, hidden_size=32, num_hidden_layers=3, ffn_dim=64, num_attention_heads=4,
        max_position_embeddings=128, word_embed_proj_dim=32, **IDS,
    ),
    "phi3": Phi3Config(**SIZE, **HEADS, **IDS),
    "phi3_longrope": Phi3Config(**SIZE, **HEADS, **IDS, rope_parameters=LONGROPE, original_max_position_embeddings=32),
    "qwen2": Qwen2Config(**SIZE, **HEADS, **IDS),
    "qwen3": Qwen3Config(**SIZE, **HEADS, **IDS, head_dim=8),
    "qwen3_moe": Qwen3MoeConfig(
        **SIZE, **HEADS, **IDS, head_dim=8, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=32
    ),
}  # fmt: skip
"""Architectures that the slots runner supports."""

ONE_AT_A_TIME: dict[str, PreTrainedConfig] = {
    "bloom": BloomConfig(vocab_size=128, hidden_size=32, n_layer=3, n_head=4, **IDS),
    "falcon_alibi": FalconConfig(
        vocab_size=128, hidden_size=32, num_hidden_layers=3, num_attention_heads=4, alibi=True, **IDS
    ),
    "mamba": MambaConfig(vocab_size=128, hidden_size=32, num_hidden_layers=3, state_size=8, **IDS),
    "qwen3_5": Qwen3_5TextConfig(
        **SIZE, **HEADS, **IDS, head_dim=8, linear_num_value_heads=4, linear_num_key_heads=2, linear_key_head_dim=8,
        linear_value_head_dim=8, layer_types=["linear_attention", "linear_attention", "full_attention"],
    ),
}  # fmt: skip
"""Architectures whose masks or states the slots runner does not support."""

ARCHITECTURES = BATCHED | ONE_AT_A_TIME


def build(name: str) -> PreTrainedModel:
    """Random weights, large enough that every part of the model affects the output."""
    torch.manual_seed(0)
    model: PreTrainedModel = AutoModelForCausalLM.from_config(deepcopy(ARCHITECTURES[name])).eval()
    with torch.no_grad():
        for weights in model.parameters():
            if weights.ndim > 1:
                weights.normal_(0, 0.2)
    return model


def greedy(model: PreTrainedModel, prompt: tuple[int, ...], new: int) -> list[int]:
    """Output of transformers' `generate`."""
    ids = torch.tensor([prompt], device=model.device)
    answer = model.generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=new, do_sample=False, eos_token_id=None, pad_token_id=0
    )
    return [int(token) for token in answer[0, len(prompt) :]]
