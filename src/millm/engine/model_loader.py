"""Loads a folder of Hugging Face weights to the device, and checks that they are complete and finite."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import structlog
import torch
from safetensors import safe_open
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, PreTrainedModel
from transformers.utils import logging as transformers_logging

from millm.engine.failures import first_line
from millm.engine.messages import LoadModel, ModelFacts, ReportProgress
from millm.engine.quantization import (
    Int8Linear,
    bitsandbytes_config,
    count_replaced_parameters,
    fit_to_cpu,
    int8_linears,
    quantization_label,
)
from millm.engine.runner_selection import RunnerChoice
from millm.errors import InsufficientMemory, InvalidModel, InvalidRequest

log = structlog.get_logger()
DEFAULT_CONTEXT_LENGTH = 2048  # For the rare configuration that states none
UNUSED_ENCODER_WEIGHTS = ("pooler.",)
"""Prefixes of weights that an encoder's checkpoint may lack: vectors are pooled from the last hidden states."""


def load_model(command: LoadModel, on_progress: ReportProgress) -> PreTrainedModel:
    """Raises InvalidModel, InvalidRequest (device, quantization) or InsufficientMemory."""
    device = pick_device(command.device)
    try:
        with _progress_reported_to(on_progress):
            model = _read_checkpoint(command, device)
    except torch.OutOfMemoryError as error:
        raise InsufficientMemory(f"this model does not fit in the memory of {device}") from error
    except (OSError, ValueError, KeyError, RuntimeError, ImportError) as error:
        reason = first_line(error, 4096).replace(command.path, "the folder")[:200]
        raise InvalidModel(f"this folder is not a model that can be loaded: {reason}") from error
    on_progress("checking weights", 0, 1)
    _check_finite(model.named_parameters())
    on_progress("checking weights", 1, 1)
    return model


def pack_int8(model: PreTrainedModel, command: LoadModel, on_progress: ReportProgress) -> None:
    """Convert linear layers to int8 if enabled, but not of encoders, whose vectors must match other programs'."""
    is_default = (command.quantization, command.dtype) == ("none", "auto")
    if command.generates and command.cpu_int8 and model.device.type == "cpu" and is_default:
        report = int8_linears(model, on_progress)
        log.info("model.int8", layers=report.converted_layers, **({"reason": report.reason} if report.reason else {}))


def model_facts(model: PreTrainedModel, choice: RunnerChoice, command: LoadModel) -> ModelFacts:
    config = model.config.get_text_config(decoder=True)
    positions = max_encoder_positions(model) or getattr(config, "max_position_embeddings", None)
    length = positions or DEFAULT_CONTEXT_LENGTH
    return ModelFacts(
        id=command.id,
        architecture=type(model).__name__,
        layers=config.num_hidden_layers,
        width=config.hidden_size,
        vocab_size=config.vocab_size,
        context_length=min(length, command.context or length),
        stop_ids=stop_ids(model) if choice.runner else (),
        device=str(model.device),
        dtype=str(model.dtype).removeprefix("torch."),
        parameters=model.num_parameters() + count_replaced_parameters(model),
        runner=choice.name,
        runner_reason=choice.reason,
        slots=choice.runner.capacity if choice.runner else 1,
        generates=choice.runner is not None,
        weights=_weights(model),
    )


def max_encoder_positions(model: PreTrainedModel) -> int | None:
    """Learned positions without those up to `padding_idx`, which RoBERTa and MPNet never use; None for other models."""
    for name, module in model.named_modules():
        if name.endswith("position_embeddings") and isinstance(module, nn.Embedding) and module.padding_idx is not None:
            return module.num_embeddings - module.padding_idx - 1
    return None


def pick_device(requested: str) -> torch.device:
    if requested == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(requested)
    except RuntimeError as error:
        raise InvalidRequest(f"device {requested!r} is not one of auto, cpu, cuda, cuda:N", param="device") from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        message = f"device {requested!r} is not there: this torch sees {torch.cuda.device_count()} CUDA devices"
        raise InvalidRequest(message, param="device")
    return device


def _read_checkpoint(command: LoadModel, device: torch.device) -> PreTrainedModel:
    config = AutoConfig.from_pretrained(
        command.path, local_files_only=True, trust_remote_code=command.trust_remote_code
    )
    dtype = _dtype(command.dtype, device)
    own_dtype = config.dtype if isinstance(config.dtype, torch.dtype) else torch.bfloat16
    compute_dtype = dtype if isinstance(dtype, torch.dtype) else own_dtype
    quantization = bitsandbytes_config(command.quantization, config, compute_dtype)
    if quantization:
        _check_finite(_checkpoint_tensors(Path(command.path), device))
    loader: Any = AutoModelForCausalLM if command.generates else AutoModel
    loaded: Any = loader.from_pretrained(
        command.path,
        dtype=dtype,
        device_map=_device_map(command, device, is_quantized=quantization is not None),
        local_files_only=True,
        trust_remote_code=command.trust_remote_code,
        output_loading_info=True,
        ignore_mismatched_sizes=True,  # `_check_complete` names them
        **({"quantization_config": quantization} if quantization else {}),
        **({} if command.attention == "auto" else {"attn_implementation": command.attention}),
    )
    _check_complete(loaded[1], unused_prefixes=() if command.generates else UNUSED_ENCODER_WEIGHTS)
    model: PreTrainedModel = loaded[0]
    fit_to_cpu(model)
    return model


def _device_map(
    command: LoadModel, device: torch.device, *, is_quantized: bool
) -> dict[str, torch.device] | str | None:
    """None: load to the CPU without accelerate's hooks."""
    if command.device_map == "auto":
        return "auto"
    return {"": device} if is_quantized or device.type != "cpu" else None


def _dtype(requested: str, device: torch.device) -> torch.dtype | str:
    """`auto` is float32 on a CPU: bfloat16 without hardware support is three times slower (engine study)."""
    if requested == "auto":
        return torch.float32 if device.type == "cpu" else "auto"
    return {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}[requested]


def _weights(model: PreTrainedModel) -> str:
    if any(isinstance(module, Int8Linear) for module in model.modules()):
        return "int8 on CPU (rows scaled apart)"
    return quantization_label(model) or str(model.dtype).removeprefix("torch.")


def stop_ids(model: PreTrainedModel) -> tuple[int, ...]:
    all_ids: set[int] = set()
    for config in (model.generation_config, model.config.get_text_config(decoder=True)):
        ids = getattr(config, "eos_token_id", None)
        all_ids |= set(ids) if isinstance(ids, list) else ({ids} if ids is not None else set())
    return tuple(sorted(all_ids))


def _check_complete(report: dict[str, Any], unused_prefixes: tuple[str, ...]) -> None:
    for kind, problem in (("missing_keys", "lacks"), ("mismatched_keys", "has the wrong shape for")):
        keys = sorted(name for name in map(str, report.get(kind, ())) if not name.startswith(unused_prefixes))
        if keys:
            more = f" and {len(keys) - 1} more" if len(keys) > 1 else ""
            raise InvalidModel(f"this checkpoint {problem} {keys[0]}{more}; download it again")


def _check_finite(named_tensors: Iterable[tuple[str, Tensor]]) -> None:
    for name, weights in named_tensors:
        if weights.is_floating_point() and not bool(torch.isfinite(weights).all()):
            raise InvalidModel(f"this checkpoint's {name} holds NaN or infinite weights; download it again")


def _checkpoint_tensors(folder: Path, device: torch.device) -> Iterator[tuple[str, Tensor]]:
    """Tensors of the files, to check them before quantization hides NaN and infinity."""
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="pt", device=str(device)) as file:
            for name in file.keys():  # noqa: SIM118  not a mapping
                yield name, file.get_tensor(name)


@contextmanager
def _progress_reported_to(on_progress: ReportProgress) -> Iterator[None]:
    """Send transformers' progress bar over the weights to `on_progress` instead of the terminal."""

    def bar(_factory: object, args: tuple[Any, ...], _kwargs: dict[str, Any]) -> Iterator[Any]:
        items = list(args[0]) if args else []
        for done, item in enumerate(items):
            on_progress("loading weights", done, len(items))
            yield item
        on_progress("loading weights", len(items), len(items))

    previous = transformers_logging.set_tqdm_hook(bar)
    try:
        yield
    finally:
        transformers_logging.set_tqdm_hook(previous)
