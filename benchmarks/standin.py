"""A model and an SAE with random weights in the shape of real ones, for equal compute."""

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import Gemma2Config, Gemma2ForCausalLM

SPECIAL = ("<pad>", "<bos>", "<eos>")
TEMPLATE = (
    "{% for message in messages %}<bos>{{ message['role'] }}: {{ message['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}model: {% endif %}"
)
CONTEXT = 3072
SPREAD = 0.02
"""Standard deviation of the weights."""


@dataclass(frozen=True)
class Shape:
    layers: int
    width: int
    inner: int
    heads: int
    kv_heads: int
    head: int
    vocabulary: int
    features: int
    layer: int
    """That the SAE is read at."""


SHAPES = {
    "gemma-2-2b": Shape(26, 2304, 9216, 8, 4, 256, 256_000, 16_384, 20),
    "tiny": Shape(4, 64, 128, 4, 2, 16, 512, 2048, 2),
}
"""`gemma-2-2b`: Gemma 2's report, table 1, and Gemma Scope's 16k residual SAEs. `tiny` tries the benchmark out."""


def write_model(folder: Path, shape: Shape, device: str) -> Path:
    """bfloat16 weights N(0, SPREAD²), drawn on `device`, and a tokenizer of bytes."""
    folder.mkdir(parents=True)
    _write_tokenizer(folder, shape.vocabulary)
    config = Gemma2Config(
        vocab_size=shape.vocabulary, hidden_size=shape.width, intermediate_size=shape.inner,
        num_hidden_layers=shape.layers, num_attention_heads=shape.heads, num_key_value_heads=shape.kv_heads,
        head_dim=shape.head, query_pre_attn_scalar=shape.head, max_position_embeddings=CONTEXT,
        sliding_window=CONTEXT, pad_token_id=0, bos_token_id=1, eos_token_id=2, dtype="bfloat16",
    )  # fmt: skip
    torch.manual_seed(0)
    with torch.device(device):
        torch.set_default_dtype(torch.bfloat16)
        model = Gemma2ForCausalLM(config)
        torch.set_default_dtype(torch.float32)
    with torch.no_grad():
        for weights in model.parameters():
            if weights.ndim > 1:
                weights.normal_(0, SPREAD)
    model.save_pretrained(folder)
    return folder


def write_sae(folder: Path, shape: Shape, model: str) -> Path:
    """A JumpReLU SAE in SAELens' layout with unit rows of random direction; a few per cent of its features fire."""
    folder.mkdir(parents=True)
    generator = torch.Generator().manual_seed(1)
    decoder = torch.randn(shape.features, shape.width, generator=generator)  # [F, d]
    decoder /= decoder.norm(dim=-1, keepdim=True)
    save_file(
        {
            "W_enc": decoder.T.contiguous(),
            "W_dec": decoder,
            "b_enc": torch.zeros(shape.features),
            "b_dec": torch.zeros(shape.width),
            "threshold": torch.full((shape.features,), 2.0),
        },
        folder / "sae_weights.safetensors",
    )
    hook = f"blocks.{shape.layer}.hook_resid_post"
    config = {
        "architecture": "jumprelu", "d_in": shape.width, "d_sae": shape.features, "dtype": "float32", "device": "cpu",
        "apply_b_dec_to_input": False, "normalize_activations": "none", "reshape_activations": "none",
        "metadata": {"sae_lens_version": "6.54.12", "model_name": model, "hook_name": hook},
    }  # fmt: skip
    (folder / "cfg.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


def _write_tokenizer(folder: Path, size: int) -> None:
    """A token per byte, padded to the vocabulary size, so that any sampled token has text."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = [*SPECIAL, *alphabet, *(f"w{number}" for number in range(size - len(SPECIAL) - len(alphabet)))]
    tokenizer = Tokenizer(models.BPE(vocab={word: number for number, word in enumerate(words)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(list(SPECIAL))
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "chat_template": TEMPLATE}
    names = dict(zip(("pad_token", "bos_token", "eos_token"), SPECIAL, strict=True))
    (folder / "tokenizer_config.json").write_text(json.dumps(config | names), encoding="utf-8")
