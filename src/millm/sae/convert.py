"""The process that converts another library's SAE: an order on standard input, news on standard output.

It writes SAELens' layout (`cfg.json`, `sae_weights.safetensors`), which is then read like any other.
"""

import json
import resource
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import torch
from safetensors.torch import save_file

from millm.errors import InvalidSae
from millm.sae.foreign import pickled, stored
from millm.sae.foreign.order import Format, News, Order
from millm.sae.foreign.source import Foreign, Reader
from millm.sae.formats import saelens
from millm.sae.formats.saelens_config import CONFIG

READERS: dict[Format, Reader] = {
    "dictionary_learning": pickled.dictionary_learning,
    "llama_scope": stored.llama_scope,
    "llama_scope_r1_distill": stored.llama_scope_r1_distill,
    "qwen_scope": pickled.qwen_scope,
    "sparsify": stored.sparsify,
    "torch_linear": pickled.torch_linear,
    "mwhanna": stored.mwhanna,
    "connor_rob": pickled.connor_rob,
}


def main() -> None:
    order = msgspec.json.decode(sys.stdin.buffer.read(), type=Order)
    if order.memory_limit is not None:
        resource.setrlimit(resource.RLIMIT_DATA, (order.memory_limit, order.memory_limit))
    try:
        convert(order, lambda stage: _tell(News(stage=stage)))
    except Exception as error:  # noqa: BLE001  the edge of the process: whatever it was is told as one sentence
        _tell(News(problem=_problem(error)))
    else:
        _tell(News())


def _problem(error: Exception) -> str:
    if isinstance(error, InvalidSae):
        return error.message
    if isinstance(error, MemoryError) or "allocate memory" in str(error):  # torch raises a RuntimeError
        return "it needs more memory than there is"
    return f"it is not what its file names say ({type(error).__name__})"


def convert(order: Order, on_stage: Callable[[str], None]) -> None:
    """Fills `order.target`. Raises InvalidSae."""
    on_stage("reading")
    found = READERS[order.format](order)
    on_stage("writing")
    target = Path(order.target)
    tensors = {name: tensor.to(torch.float32).contiguous() for name, tensor in found.tensors.items()}
    save_file(tensors, target / saelens.WEIGHTS)
    (target / CONFIG).write_text(json.dumps(_cfg(found, order), indent=1))
    on_stage("checking")
    saelens.read(target)


def _cfg(found: Foreign, order: Order) -> dict[str, object]:
    d_in, d_sae = found.tensors["W_enc"].shape
    scaled = {"normalize_activations": "expected_average_only_in", "scaling_factor": found.input_scale}
    return {
        "architecture": found.architecture,
        "d_in": d_in,
        "d_sae": d_sae,
        "apply_b_dec_to_input": found.apply_b_dec_to_input,
        **({"k": found.k} if found.k is not None else {}),
        **(scaled if found.input_scale is not None else {"normalize_activations": "none"}),
        "metadata": {**({"model_name": found.model_name} if found.model_name else {}), **found.hooks},
        "converted_from": order.format,
    }


def _tell(news: News) -> None:
    sys.stdout.buffer.write(msgspec.json.encode(news) + b"\n")
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
