"""Tables of the memory of well-known models, by `millm estimate` from their published shapes."""

from functools import cache

import torch
from transformers import AutoModelForCausalLM, Gemma2Config, GPT2Config, LlamaConfig, PretrainedConfig

from millm.hub import memory_estimate
from millm.hub.checkpoint import TensorHeader, max_context_length
from millm.hub.memory_estimate import DEFAULT_CONTEXT, Checkpoint, Quantization, estimate
from tools.field_tables import table

BEGIN = "<!-- memory: written by tools/make_docs.py from the estimate; do not edit -->"
END = "<!-- /memory -->"

MODELS: dict[str, PretrainedConfig] = {
    "gpt2": GPT2Config(dtype="float32"),
    "google/gemma-2-2b": Gemma2Config(
        vocab_size=256_000, hidden_size=2304, intermediate_size=9216, num_hidden_layers=26, num_attention_heads=8,
        num_key_value_heads=4, head_dim=256, max_position_embeddings=8192, sliding_window=4096, dtype="bfloat16",
    ),
    "meta-llama/Llama-3.1-8B": LlamaConfig(
        vocab_size=128_256, hidden_size=4096, intermediate_size=14336, num_hidden_layers=32, num_attention_heads=32,
        num_key_value_heads=8, max_position_embeddings=131_072, tie_word_embeddings=False, dtype="bfloat16",
    ),
    "google/gemma-2-9b": Gemma2Config(
        vocab_size=256_000, hidden_size=3584, intermediate_size=14336, num_hidden_layers=42, num_attention_heads=16,
        num_key_value_heads=8, head_dim=256, max_position_embeddings=8192, sliding_window=4096, dtype="bfloat16",
    ),
}  # fmt: skip
"""Hugging Face id → its configuration."""

SAES = {
    "GPT-2 small, 24,576 features": (768, 24_576),
    "Gemma Scope 2B, 16,384 features": (2304, 16_384),
    "Gemma Scope 2B, 65,536 features": (2304, 65_536),
    "Gemma Scope 9B, 16,384 features": (3584, 16_384),
    "Llama Scope 8x, 32,768 features": (4096, 32_768),
}
"""SAE → width and number of features."""

WAYS: dict[str, tuple[str, Quantization]] = {
    "GPU": ("cuda:0", "none"),
    "GPU, `8bit`": ("cuda:0", "8bit"),
    "GPU, `4bit`": ("cuda:0", "4bit"),
    "CPU": ("cpu", "none"),
}


def with_tables(page: str) -> str:
    """`page` with new text between its marks."""
    before, _, rest = page.partition(BEGIN)
    return f"{before}{BEGIN}\n\n{_models()}\n{_saes()}\n{END}{rest.partition(END)[2]}"


def _models() -> str:
    rows = [(f"`{name}`", *(_total(name, *way) for way in WAYS.values()), _gigabytes(_kv(name))) for name in MODELS]
    return table(("model, in GB", *WAYS, "each sequence more"), rows)


def _saes() -> str:
    rows = [(name, _gigabytes(memory_estimate.sae_bytes(*shape, "jumprelu"))) for name, shape in SAES.items()]
    return table(("SAE", "GB"), rows)


def _total(name: str, device: str, quantization: Quantization) -> str:
    found = estimate(checkpoint(name), name=name, device=device, quantization=quantization)
    assert found.total
    peak = max(found.total, (found.while_loading or 0) + found.overhead)
    return _gigabytes(found.total) + (f" ({_gigabytes(peak)} while it loads)" if peak > found.total else "")


def _kv(name: str) -> int:
    read = checkpoint(name)
    found = memory_estimate.kv_cache_bytes(
        read,
        read.resolve_dtype("auto", "cuda"),
        min(DEFAULT_CONTEXT, max_context_length(read.config) or DEFAULT_CONTEXT),
    )
    assert found
    return found


@cache
def checkpoint(name: str) -> Checkpoint:
    config = MODELS[name]
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)  # type: ignore[no-untyped-call]
    stored = {"float32": "F32", "bfloat16": "BF16"}[str(config.dtype).removeprefix("torch.")]
    tied = {"lm_head.weight"} if config.tie_word_embeddings else set()
    weights = {name: weight for name, weight in model.state_dict().items() if name not in tied}
    tensors = tuple(
        TensorHeader(name=name, dtype=stored, shape=tuple(weight.shape)) for name, weight in weights.items()
    )
    return Checkpoint(config.to_dict(), tensors)


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:.1f}" if size >= 1e9 else f"{size / 1e9:.2f}"
