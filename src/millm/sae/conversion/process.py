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
from millm.sae.conversion import readers
from millm.sae.conversion.protocol import ConversionEvent, ConversionFormat, ConversionRequest
from millm.sae.conversion.readers import ConversionReader, ConvertedSae
from millm.sae.formats import saelens
from millm.sae.formats.saelens import SAELENS_CONFIG

READERS: dict[ConversionFormat, ConversionReader] = {
    "dictionary_learning": readers.read_dictionary_learning,
    "llama_scope": readers.read_llama_scope,
    "llama_scope_r1_distill": readers.read_llama_scope_r1_distill,
    "qwen_scope": readers.read_qwen_scope,
    "sparsify": readers.read_sparsify,
    "torch_linear": readers.read_torch_linear,
    "mwhanna": readers.read_mwhanna,
    "connor_rob": readers.read_connor_rob,
}


def main() -> None:
    order = msgspec.json.decode(sys.stdin.buffer.read(), type=ConversionRequest)
    if order.memory_limit is not None:
        resource.setrlimit(resource.RLIMIT_DATA, (order.memory_limit, order.memory_limit))
    try:
        convert(order, lambda stage: _send_event(ConversionEvent(stage=stage)))
    except Exception as error:  # noqa: BLE001  the edge of the process: whatever it was is told as one sentence
        _send_event(ConversionEvent(problem=_error_message(error)))
    else:
        _send_event(ConversionEvent())


def _error_message(error: Exception) -> str:
    if isinstance(error, InvalidSae):
        return error.message
    if isinstance(error, MemoryError) or "allocate memory" in str(error):  # torch raises a RuntimeError
        return "it needs more memory than there is"
    return f"it is not what its file names say ({type(error).__name__})"


def convert(request: ConversionRequest, on_stage: Callable[[str], None]) -> None:
    """Fills `order.target`. Raises InvalidSae."""
    on_stage("reading")
    found = READERS[request.format](request)
    on_stage("writing")
    target = Path(request.target)
    tensors = {name: tensor.to(torch.float32).contiguous() for name, tensor in found.tensors.items()}
    save_file(tensors, target / saelens.SAELENS_WEIGHTS)
    (target / SAELENS_CONFIG).write_text(json.dumps(_saelens_config(found, request), indent=1))
    on_stage("checking")
    saelens.read_saelens(target)


def _saelens_config(sae: ConvertedSae, request: ConversionRequest) -> dict[str, object]:
    d_in, d_sae = sae.tensors["W_enc"].shape
    scaled = {"normalize_activations": "expected_average_only_in", "scaling_factor": sae.input_scale}
    return {
        "architecture": sae.architecture,
        "d_in": d_in,
        "d_sae": d_sae,
        "apply_b_dec_to_input": sae.apply_b_dec_to_input,
        **({"k": sae.k} if sae.k is not None else {}),
        **(scaled if sae.input_scale is not None else {"normalize_activations": "none"}),
        "metadata": {**({"model_name": sae.model_name} if sae.model_name else {}), **sae.hooks},
        "converted_from": request.format,
    }


def _send_event(event: ConversionEvent) -> None:
    sys.stdout.buffer.write(msgspec.json.encode(event) + b"\n")
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
