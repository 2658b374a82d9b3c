"""bitsandbytes: weights in 8 or 4 bits from the moment they are loaded. What is asked, or why it cannot be."""

import importlib.util
import logging
from collections.abc import Callable
from typing import Any

import torch
from transformers import BitsAndBytesConfig, PreTrainedConfig, PreTrainedModel

from millm.engine.messages import Quantization
from millm.engine.sizes import NF4_BLOCK
from millm.errors import InvalidRequest

BF16_KERNEL_TILE = 32

for _name in (
    "bitsandbytes.autograd._functions",  # "inputs will be cast from float32 to float16", once per matrix product
    "bitsandbytes.backends.cpu.ops",  # an optional package of faster kernels is not there
):
    logging.getLogger(_name).setLevel(logging.ERROR)


def bitsandbytes_config(
    requested: Quantization, config: PreTrainedConfig, dtype: torch.dtype
) -> BitsAndBytesConfig | None:
    """How to load the checkpoint of `config`; None: as it is. `dtype` is what a 4-bit layer computes in.

    8 bits is vector-wise int8 of Dettmers et al. 2022 (arXiv:2208.07339) without its outlier columns
    (`llm_int8_threshold=0`), which are chosen over the whole batch: a neighbour would change a row's rounding. 4 bits
    is NF4 (arXiv:2305.14314) without double quantization. Raises InvalidRequest.
    """
    held = _checkpoint_quantization(config)
    if requested == "none":
        return None
    if importlib.util.find_spec("bitsandbytes") is None:
        raise InvalidRequest(
            f"quantization {requested} needs bitsandbytes: run `pip install bitsandbytes`, or ask for none",
            param="quantization",
        )
    if held not in (None, requested):
        raise InvalidRequest(
            f"this checkpoint is quantized already ({held}), so quantization {requested} cannot be had; ask for none",
            param="quantization",
        )
    if held:
        return None
    config_of: Callable[..., BitsAndBytesConfig] = BitsAndBytesConfig  # its __init__ has no types
    if requested == "8bit":
        return config_of(load_in_8bit=True, llm_int8_threshold=0.0)
    return config_of(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype)


def fit_to_cpu(model: PreTrainedModel) -> None:
    """On a CPU, bitsandbytes 0.50 reads 4-bit weights wrongly, without a word, if its blocks of 64 cross rows: refused.

    Its bfloat16 kernel tiles outputs by 32 and raises on other layers: those go the slower way. Raises InvalidRequest.
    """
    for name, module in model.named_modules():
        layer: Any = module
        if not hasattr(layer, "support_avx512bf16_for_cpu") or layer.weight.device.type != "cpu":
            continue
        if layer.in_features % NF4_BLOCK:
            raise InvalidRequest(
                f"quantization 4bit on a CPU needs layers whose inputs are a multiple of {NF4_BLOCK}, and {name} has"
                f" {layer.in_features}; ask for 8bit or none",
                param="quantization",
            )
        if layer.out_features % BF16_KERNEL_TILE:
            layer.support_avx512bf16_for_cpu = False


def quantization_label(model: PreTrainedModel) -> str | None:
    """What the model's weights are quantized with, for people; None: they are not."""
    held = _checkpoint_quantization(model.config)
    if held == "8bit":
        return "bitsandbytes 8-bit"
    if held == "4bit":
        return f"bitsandbytes 4-bit ({model.config.quantization_config.bnb_4bit_quant_type})"
    return held


def _checkpoint_quantization(config: PreTrainedConfig) -> str | None:
    """`8bit` or `4bit` for bitsandbytes, else the method's own name, of a checkpoint's or a model's configuration."""
    found: Any = getattr(config, "quantization_config", None)
    if not found:
        return None
    values: dict[str, Any] = found if isinstance(found, dict) else found.to_dict()
    for bits in ("8bit", "4bit"):
        if values.get(f"load_in_{bits}"):
            return bits
    return str(values.get("quant_method", "in a way it does not name"))
