"""The process that converts another library's SAE: a request on standard input, events on standard output.

The result is SAELens' layout (`cfg.json`, `sae_weights.safetensors`).
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
    request = msgspec.json.decode(sys.stdin.buffer.read(), type=ConversionRequest)
    if request.memory_limit is not None:
        resource.setrlimit(resource.RLIMIT_DATA, (request.memory_limit, request.memory_limit))
    try:
        convert(request, lambda stage: _send_event(ConversionEvent(stage=stage)))
    except Exception as error:  # noqa: BLE001  the edge of the process: any failure becomes one sentence
        _send_event(ConversionEvent(problem=_error_message(error)))
    else:
        _send_event(ConversionEvent())


def _error_message(error: Exception) -> str:
    if isinstance(error, InvalidSae):
        return error.message
    if isinstance(error, MemoryError) or "allocate memory" in str(error):  # torch raises a RuntimeError
        return "it needs more memory than is free"
    return f"its content does not match its file names ({type(error).__name__})"


def convert(request: ConversionRequest, on_stage: Callable[[str], None]) -> None:
    """Fill `request.target`. Raises InvalidSae."""
    on_stage("reading")
    sae = READERS[request.format](request)
    on_stage("writing")
    target = Path(request.target)
    tensors = {name: tensor.to(torch.float32).contiguous() for name, tensor in sae.tensors.items()}
    save_file(tensors, target / saelens.SAELENS_WEIGHTS)
    (target / SAELENS_CONFIG).write_text(json.dumps(_saelens_config(sae, request), indent=1))
    on_stage("checking")
    saelens.read_saelens(target)


def _saelens_config(sae: ConvertedSae, request: ConversionRequest) -> dict[str, object]:
    d_in, d_sae = sae.tensors["W_enc"].shape
    normalisation: dict[str, object] = {"normalize_activations": "none"}
    if sae.input_scale is not None:
        normalisation = {"normalize_activations": "expected_average_only_in", "scaling_factor": sae.input_scale}
    return {
        "architecture": sae.architecture,
        "d_in": d_in,
        "d_sae": d_sae,
        "apply_b_dec_to_input": sae.apply_b_dec_to_input,
        **({"k": sae.k} if sae.k is not None else {}),
        **normalisation,
        "metadata": {**({"model_name": sae.model_name} if sae.model_name else {}), **sae.hooks},
        "converted_from": request.format,
    }


def _send_event(event: ConversionEvent) -> None:
    sys.stdout.buffer.write(msgspec.json.encode(event) + b"\n")
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
