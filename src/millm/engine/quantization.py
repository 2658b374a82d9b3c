"""Quantized weights: int8 linear layers on a CPU by torch's fbgemm kernel, and 8 or 4 bits by bitsandbytes."""

import importlib.util
import logging
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import BitsAndBytesConfig, PreTrainedConfig, PreTrainedModel
from transformers.pytorch_utils import Conv1D

from millm.engine.limits import INT8_MAX_INPUTS, INT8_MIN_WEIGHTS, NF4_BLOCK
from millm.engine.messages import Quantization, ReportProgress
from millm.errors import InvalidRequest

KERNEL = "linear_with_input_q_dq_qweight_dq_output_fp32"
"""fbgemm's float32 → uint8 × int8 → float32, with the input's scale and zero point as arguments."""
INPUT_STEPS = 63
"""Inputs are rounded to −63..63, not to ±127: without VNNI, fbgemm adds two products in 16 bits (2 · 128 · 127)."""
FINE_SCALE = 128.0  # Scale of the second pass; a power of two, so that scaling never rounds
BF16_KERNEL_TILE = 32
for _name in (
    "bitsandbytes.autograd._functions",  # "inputs will be cast from float32 to float16", once per matrix product
    "bitsandbytes.backends.cpu.ops",  # an optional package of faster kernels is not installed
):
    logging.getLogger(_name).setLevel(logging.ERROR)


@dataclass(frozen=True)
class Int8Report:
    converted_layers: int
    reason: str = ""  # Why no layer was converted


class Int8Linear(nn.Module):
    """`y = x Wᵀ + b` with W in int8, one scale per output channel. No gradients.

    Each input row has its own scale, unlike in torch's `linear_dynamic`, and passes through the kernel twice: rounded,
    and as the rounding error. That preserves 13 bits, and the sums of integers are exact: a row's result does not
    depend on the other rows, and a row with NaN or ∞ changes no other (docs/decisions/0007-int8-rows-scaled-apart.md).
    """

    def __init__(self, weight: Tensor, bias: Tensor | None, *, replaced_count: int) -> None:
        super().__init__()
        self.out_features, self.in_features = weight.shape
        self.replaced_count = replaced_count
        """Parameters that the replaced layer removed from the model; 0 if an embedding still holds them."""
        self.bias = bias
        self._packed = _pack(weight)
        self._kernel = getattr(torch.ops.quantized, KERNEL)

    @property
    def weight(self) -> Tensor:
        """Dequantized W `[out, in]` in float32, computed at every call, for models that read it."""
        weight: Tensor = torch.ops.quantized.linear_unpack(self._packed)[0].dequantize()
        return weight

    @property
    def packed_bytes(self) -> int:
        """Size of the weights, and of a scale, a zero point and a sum for each output channel."""
        return self.out_features * (self.in_features + 12)

    def forward(self, x: Tensor) -> Tensor:
        """`[..., in]` → `[..., out]`, float32."""
        scale = x.abs().amax(-1, keepdim=True).div_(INPUT_STEPS)  # [..., 1]; 0 for a row of zeros
        fine = x / scale
        coarse = fine.round()
        passes = torch.stack((coarse, fine.sub_(coarse).mul_(FINE_SCALE)))  # [2, ..., in]
        y = self._kernel(passes, 1.0, INPUT_STEPS + 1, self._packed)  # [2, ..., out]
        total: Tensor = torch.add(y[0], y[1], alpha=1 / FINE_SCALE).mul_(scale)
        return total if self.bias is None else total.add_(self.bias)


def int8_linears(model: PreTrainedModel, on_progress: ReportProgress) -> Int8Report:
    """Replace in place every linear layer that gains, including the head. Embeddings stay in float32."""
    reason = _int8_unsupported_reason(model)
    if reason:
        return Int8Report(0, reason)
    embedding = model.get_input_embeddings().weight
    names = [name for name, module in model.named_modules() if _is_worth_converting(module)]

    def convert(name: str) -> Int8Linear:
        layer: Any = model.get_submodule(name)
        weight = layer.weight.detach()
        return Int8Linear(
            weight.T if isinstance(layer, Conv1D) else weight,
            layer.bias,
            replaced_count=0 if layer.weight is embedding else weight.numel(),
        )

    pool = ThreadPoolExecutor(torch.get_num_threads())  # fbgemm packs on one core, and releases the GIL
    try:
        with warnings.catch_warnings():  # torch ≥ 2.13 deprecates quantized tensors, which the kernel requires
            warnings.filterwarnings("ignore", message="torch.quantize_per_tensor, torch.quantize_per_channel")
            for done, layer in enumerate(pool.map(convert, names)):
                on_progress("packing weights", done, len(names))
                model.set_submodule(names[done], layer)
    finally:
        pool.shutdown(cancel_futures=True)
    on_progress("packing weights", len(names), len(names))
    return Int8Report(len(names), "" if names else f"no linear layer has {INT8_MIN_WEIGHTS:,} weights")


def count_replaced_parameters(model: nn.Module) -> int:
    """Number of parameters that `int8_linears` removed from `model.parameters()`."""
    return sum(module.replaced_count for module in model.modules() if isinstance(module, Int8Linear))


def _int8_unsupported_reason(model: PreTrainedModel) -> str:
    if model.device.type != "cpu":
        return f"the model is on {model.device}"
    if getattr(model, "hf_quantizer", None) is not None:
        return "the weights are quantized already"
    if "fbgemm" not in torch.backends.quantized.supported_engines or not hasattr(torch.ops.quantized, KERNEL):
        return "this torch has no 8-bit kernels for this CPU"
    dtypes = {weights.dtype for weights in model.parameters()}
    return "" if dtypes == {torch.float32} else "the weights are not float32"


def _is_worth_converting(module: nn.Module) -> bool:
    if type(module) not in (nn.Linear, Conv1D):  # subclasses may compute something else
        return False
    weight: Any = module.weight
    width = weight.shape[0] if isinstance(module, Conv1D) else weight.shape[1]
    return bool(weight.numel() >= INT8_MIN_WEIGHTS and width <= INT8_MAX_INPUTS)


def _pack(weight: Tensor) -> Any:
    """`[out, in]` float32 → fbgemm's layout of int8 weights in ±127."""
    scales = (weight.abs().amax(1) / 127).clamp_min(torch.finfo(torch.float32).tiny)  # [out]
    zeros = torch.zeros_like(scales, dtype=torch.int64)
    quantized = torch.quantize_per_channel(weight, scales, zeros, 0, torch.qint8)
    return torch.ops.quantized.linear_prepack(quantized, None)


def bitsandbytes_config(
    requested: Quantization, config: PreTrainedConfig, dtype: torch.dtype
) -> BitsAndBytesConfig | None:
    """Configuration to quantize a checkpoint at load, or None. `dtype`: in which 4-bit layers compute.

    8 bits: vector-wise int8 (Dettmers et al. 2022, arXiv:2208.07339) without outlier columns (`llm_int8_threshold=0`),
    which are chosen over the batch, so that other rows would change a row's rounding. 4 bits: NF4 (arXiv:2305.14314)
    without double quantization. Raises InvalidRequest.
    """
    existing = _checkpoint_quantization(config)
    if requested == "none":
        return None
    if importlib.util.find_spec("bitsandbytes") is None:
        raise InvalidRequest(
            f"quantization {requested} needs bitsandbytes: run `pip install bitsandbytes`, or ask for none",
            param="quantization",
        )
    if existing not in (None, requested):
        raise InvalidRequest(
            f"this checkpoint is quantized already ({existing}), so quantization {requested} is not possible; ask for"
            " none",
            param="quantization",
        )
    if existing:
        return None
    new_config: Callable[..., BitsAndBytesConfig] = BitsAndBytesConfig  # its __init__ has no types
    if requested == "8bit":
        return new_config(load_in_8bit=True, llm_int8_threshold=0.0)
    return new_config(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype)


def fit_to_cpu(model: PreTrainedModel) -> None:
    """Work around bitsandbytes 0.50 on a CPU, where 4-bit weights are wrong if its blocks of 64 cross rows.

    Raises InvalidRequest for such a layer. The bfloat16 kernel, which raises unless 32 divides the outputs, is turned
    off for those layers.
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
    """Label of the weights' quantization, or None."""
    method = _checkpoint_quantization(model.config)
    if method == "8bit":
        return "bitsandbytes 8-bit"
    if method == "4bit":
        return f"bitsandbytes 4-bit ({model.config.quantization_config.bnb_4bit_quant_type})"
    return method


def _checkpoint_quantization(config: PreTrainedConfig) -> str | None:
    """`8bit` or `4bit` for bitsandbytes, else the method's own name, or None."""
    section: Any = getattr(config, "quantization_config", None)
    if not section:
        return None
    values: dict[str, Any] = section if isinstance(section, dict) else section.to_dict()
    for bits in ("8bit", "4bit"):
        if values.get(f"load_in_{bits}"):
            return bits
    return str(values.get("quant_method", "unknown method"))
