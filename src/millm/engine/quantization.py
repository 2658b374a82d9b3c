"""Linear layers computed in 8 bits on a CPU, each row of the input scaled apart from its neighbours.

torch's own `linear_dynamic` takes one scale for the whole batch: a neighbour, a strongly steered row or the sink at
position 0 would change everybody's rounding. Here a row has its own scale and is sent twice, once rounded and once as
what the rounding lost, so an input keeps 13 bits. What is summed are integers, exactly: a row's result is bit-identical
whatever is beside it. Measurements: docs/decisions/0007-int8-rows-scaled-apart.md.

bitsandbytes: weights in 8 or 4 bits from the moment they are loaded. What is asked, or why it cannot be.
"""

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
from millm.engine.messages import Quantization
from millm.errors import InvalidRequest

OnProgress = Callable[[str, int, int], None]
KERNEL = "linear_with_input_q_dq_qweight_dq_output_fp32"
"""fbgemm's float32 → uint8 × int8 → float32, with the input's scale and zero point given by the caller."""
INPUT_STEPS = 63
"""An input runs from −63 to 63, not to 127: without VNNI, fbgemm adds two products in 16 bits (2 · 128 · 127)."""
FINE_SCALE = 128.0
"""How much finer the second pass is; a power of two, so scaling by it never rounds."""


@dataclass(frozen=True)
class Int8Report:
    converted_layers: int
    """Layers that compute in 8 bits now."""
    reason: str = ""
    """Why there are none."""


class Int8Linear(nn.Module):
    """`y = x Wᵀ + b` with W in int8, one scale per output channel. No gradients.

    A row that holds NaN or ∞ comes out non-finite, and no other row does.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None, *, replaced_count: int) -> None:
        super().__init__()
        self.out_features, self.in_features = weight.shape
        self.replaced_count = replaced_count
        """Parameters that left the model with the layer this replaces: 0 if an embedding still holds them."""
        self.bias = bias
        self._packed = _pack(weight)
        self._kernel = getattr(torch.ops.quantized, KERNEL)

    @property
    def weight(self) -> Tensor:
        """W as it is computed with, `[out, in]` in float32: made anew at every call, for the models that look at it."""
        weight: Tensor = torch.ops.quantized.linear_unpack(self._packed)[0].dequantize()
        return weight

    @property
    def packed_bytes(self) -> int:
        """Of the weights, and of a scale, a zero point and a sum for each output channel."""
        return self.out_features * (self.in_features + 12)

    def forward(self, x: Tensor) -> Tensor:
        """`[..., in]` → `[..., out]`, float32."""
        scale = x.abs().amax(-1, keepdim=True).div_(INPUT_STEPS)  # [..., 1]; a row of zeros: 0 · whatever = 0
        fine = x / scale
        coarse = fine.round()
        twice = torch.stack((coarse, fine.sub_(coarse).mul_(FINE_SCALE)))  # [2, ..., in]
        y = self._kernel(twice, 1.0, INPUT_STEPS + 1, self._packed)  # [2, ..., out]
        total: Tensor = torch.add(y[0], y[1], alpha=1 / FINE_SCALE).mul_(scale)
        return total if self.bias is None else total.add_(self.bias)

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}"


def int8_linears(model: PreTrainedModel, on_progress: OnProgress) -> Int8Report:
    """Replace in place every linear layer that gains, the head included; its float32 weights are freed at once.

    Embeddings stay as they are: a head tied to one leaves it its float32 weights.
    """
    reason = _int8_unsupported_reason(model)
    if reason:
        return Int8Report(0, reason)
    embedding = model.get_input_embeddings().weight
    names = [name for name, module in model.named_modules() if _is_worth_converting(module)]

    def packed(name: str) -> Int8Linear:
        layer: Any = model.get_submodule(name)
        weight = layer.weight.detach()
        return Int8Linear(
            weight.T if isinstance(layer, Conv1D) else weight,
            layer.bias,
            replaced_count=0 if layer.weight is embedding else weight.numel(),
        )

    pool = ThreadPoolExecutor(torch.get_num_threads())  # fbgemm packs on one core, and without the GIL
    try:
        with warnings.catch_warnings():  # torch ≥ 2.13 says so of every quantized tensor; the kernel takes no other
            warnings.filterwarnings("ignore", message="torch.quantize_per_tensor, torch.quantize_per_channel")
            for done, layer in enumerate(pool.map(packed, names)):
                on_progress("packing weights", done, len(names))
                model.set_submodule(names[done], layer)
    finally:
        pool.shutdown(cancel_futures=True)
    on_progress("packing weights", len(names), len(names))
    return Int8Report(len(names), "" if names else f"no linear layer has {INT8_MIN_WEIGHTS:,} weights")


def count_replaced_parameters(model: nn.Module) -> int:
    """Parameters that `int8_linears` took out of `model.parameters()`."""
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
    """Subclasses of nn.Linear may compute something else, so they stay."""
    if type(module) not in (nn.Linear, Conv1D):
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
