"""Write goldens/hooks_*.safetensors: the tensors of TransformerLens' bridge in tiny random models, at every hook point.

Needs the `saelens` extra. A file holds the model's weights and config, one row of ids and the bridge's tensors.
"""

import argparse
import copy
import tempfile
from importlib.metadata import version
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, models
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge
from transformers import (
    AutoTokenizer,
    Gemma2Config,
    GPT2Config,
    LlamaConfig,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)
from transformers.models.auto.modeling_auto import AutoModelForCausalLM

VOCABULARY = 32
LAYER = 1
POINTS = (
    "hook_resid_pre",
    "hook_resid_mid",
    "hook_resid_post",
    "hook_attn_out",
    "hook_mlp_out",
    "attn.hook_z",
    "mlp.hook_in",
)

_SPECIAL = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
_SHAPE = {
    "vocab_size": VOCABULARY,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 4,
    "max_position_embeddings": 32,
    "initializer_range": 0.3,
    **_SPECIAL,
}
CONFIGS = {
    "gemma2": lambda: Gemma2Config(**_SHAPE, query_pre_attn_scalar=4, sliding_window=4),
    "llama": lambda: LlamaConfig(**_SHAPE),
    "gpt2": lambda: GPT2Config(
        vocab_size=VOCABULARY,
        n_embd=16,
        n_layer=2,
        n_head=4,
        n_positions=32,
        initializer_range=0.3,
        **_SPECIAL,
    ),
}


def random_model(config: PreTrainedConfig) -> PreTrainedModel:
    """Norm gains and biases random too: at their initial 1 and 0 the wrong side of a norm could pass."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name or "ln_" in name or name.endswith("bias"):
                parameter.add_(0.3 * torch.randn_like(parameter))
    return model


def bridge_activations(model: PreTrainedModel, ids: Tensor) -> dict[str, Tensor]:
    """{hook name: [T, width]} of one layer, heads of `hook_z` laid side by side."""
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        _tokenizer().save_pretrained(folder)
        bridge = TransformerBridge.boot_transformers(
            folder,
            hf_model=copy.deepcopy(model),
            tokenizer=AutoTokenizer.from_pretrained(folder),
            device="cpu",
        )
    with torch.no_grad():
        _, cache = bridge.run_with_cache(ids)
    names = [f"blocks.{LAYER}.{point}" for point in POINTS]
    return {name: cache[name][0].flatten(start_dim=1).contiguous() for name in names}


def _tokenizer() -> PreTrainedTokenizerFast:
    words = models.WordLevel({f"t{i}": i for i in range(VOCABULARY)}, unk_token="t0")
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer(words), pad_token="t0", bos_token="t1", eos_token="t2")


def write_golden(family: str, folder: Path) -> None:
    model = random_model(CONFIGS[family]())
    ids = torch.randint(3, VOCABULARY, (1, 8))
    tensors = {f"weights.{name}": weight.clone() for name, weight in model.state_dict().items()}
    tensors |= {f"bridge.{name}": seen for name, seen in bridge_activations(model, ids).items()}
    facts = {package: version(package) for package in ("torch", "transformers", "transformer-lens")}
    facts["config"] = model.config.to_json_string(use_diff=False)
    save_file(tensors | {"ids": ids[0]}, folder / f"hooks_{family}.safetensors", metadata=facts)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, nargs="?", default=Path(__file__).parent / "goldens")
    target = parser.parse_args().folder
    for family in CONFIGS:
        write_golden(family, target)
