"""The plain runner answers as `generate` does, whatever the architecture and its cache."""

import pytest
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
    MambaConfig,
    MistralConfig,
    OPTConfig,
    Phi3Config,
    PreTrainedConfig,
    Qwen2Config,
    Qwen3Config,
    Qwen3MoeConfig,
)

from millm.engine.messages import Generate
from millm.engine.runners.plain import PlainRunner
from millm.engine.scheduler import Row, StepPlan
from millm.engine.sequence import Sequence

SIZE = {"vocab_size": 128, "hidden_size": 32, "num_hidden_layers": 3, "max_position_embeddings": 128}
HEADS = {"intermediate_size": 64, "num_attention_heads": 4, "num_key_value_heads": 2}
IDS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}

ZOO: dict[str, PreTrainedConfig] = {
    "bloom": BloomConfig(vocab_size=128, hidden_size=32, n_layer=3, n_head=4, **IDS),
    "falcon": FalconConfig(vocab_size=128, hidden_size=32, num_hidden_layers=3, num_attention_heads=4, **IDS),
    "gemma2": Gemma2Config(**SIZE, **HEADS, **IDS, head_dim=8, sliding_window=8, attn_logit_softcapping=2.0),
    "gemma3": Gemma3TextConfig(**SIZE, **HEADS, **IDS, head_dim=8, sliding_window=8),
    "gpt2": GPT2Config(vocab_size=128, n_embd=32, n_layer=3, n_head=4, n_positions=128, **IDS),
    "gptj": GPTJConfig(vocab_size=128, n_embd=32, n_layer=3, n_head=4, n_positions=128, rotary_dim=8, **IDS),
    "gpt_neox": GPTNeoXConfig(**SIZE, **IDS, intermediate_size=64, num_attention_heads=4),
    "mamba": MambaConfig(vocab_size=128, hidden_size=32, num_hidden_layers=3, state_size=8, **IDS),
    "mistral": MistralConfig(**SIZE, **HEADS, **IDS, sliding_window=8),
    "opt": OPTConfig(
        vocab_size=128, hidden_size=32, num_hidden_layers=3, ffn_dim=64, num_attention_heads=4,
        max_position_embeddings=128, word_embed_proj_dim=32, **IDS,
    ),
    "phi3": Phi3Config(**SIZE, **HEADS, **IDS),
    "qwen2": Qwen2Config(**SIZE, **HEADS, **IDS),
    "qwen3": Qwen3Config(**SIZE, **HEADS, **IDS, head_dim=8),
    "qwen3_moe": Qwen3MoeConfig(
        **SIZE, **HEADS, **IDS, head_dim=8, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=32
    ),
}  # fmt: skip

PROMPT = tuple(range(10, 30))
NEW = 12


@pytest.mark.parametrize("name", ZOO)
def test_greedy_is_generate(name: str) -> None:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(ZOO[name]).eval()
    with torch.no_grad():
        for weights in model.parameters():
            if weights.ndim > 1:
                weights.normal_(0, 0.2)
    expected = model.generate(
        torch.tensor([PROMPT]), attention_mask=torch.ones(1, len(PROMPT), dtype=torch.long), max_new_tokens=NEW,
        do_sample=False, eos_token_id=None, pad_token_id=0,
    )  # fmt: skip
    assert run(PlainRunner(model)) == expected[0, len(PROMPT) :].tolist()


def run(runner: PlainRunner) -> list[int]:
    sequence = Sequence(Generate(id="x", prompt=PROMPT, max_tokens=NEW))
    while not sequence.is_at_limit:
        logits = runner.run(StepPlan((Row(sequence, sequence.fed, sequence.unfed),)))
        assert logits.shape == (1, 128)
        sequence.generated.append(int(logits[0].argmax()))
    assert sequence.cache is not None
    runner.release(sequence)
    assert sequence.cache is None
    return sequence.generated
