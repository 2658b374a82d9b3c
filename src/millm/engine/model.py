"""A folder of Hugging Face weights → a model on the device, complete and finite, or a named refusal."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel
from transformers.utils import logging as transformers_logging

from millm.engine.messages import LoadModel, ModelFacts
from millm.engine.selftest import Verdict
from millm.errors import InsufficientMemory, InvalidModel, InvalidRequest

OnProgress = Callable[[str, int, int], None]

DEFAULT_CONTEXT_LENGTH = 2048
"""For the rare configuration that states none."""


def load(command: LoadModel, on_progress: OnProgress) -> PreTrainedModel:
    """Raises InvalidModel, InvalidRequest (device) or InsufficientMemory; nothing is kept on failure."""
    device = pick_device(command.device)
    try:
        with _reported(on_progress):
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                command.path,
                dtype=_dtype(command.dtype, device),
                device_map={"": device} if device.type != "cpu" else None,
                local_files_only=True,
                output_loading_info=True,
            )
    except torch.OutOfMemoryError as error:
        raise InsufficientMemory(f"this model does not fit in the memory of {device}") from error
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise InvalidModel(f"this folder is not a model that can be loaded: {_reason(error, command.path)}") from error
    model: PreTrainedModel = loaded[0]
    _refuse_incomplete(loaded[1])
    on_progress("checking weights", 0, 1)
    _refuse_non_finite(model)
    on_progress("checking weights", 1, 1)
    return model


def facts(model: PreTrainedModel, verdict: Verdict) -> ModelFacts:
    config = model.config.get_text_config(decoder=True)
    return ModelFacts(
        architecture=type(model).__name__,
        layers=config.num_hidden_layers,
        width=config.hidden_size,
        vocab_size=config.vocab_size,
        context_length=getattr(config, "max_position_embeddings", None) or DEFAULT_CONTEXT_LENGTH,
        stop_ids=stop_ids(model),
        device=str(model.device),
        dtype=str(model.dtype).removeprefix("torch."),
        parameters=model.num_parameters(),
        runner=verdict.name,
        runner_reason=verdict.reason,
        slots=verdict.runner.capacity,
    )


def pick_device(asked: str) -> torch.device:
    if asked == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(asked)
    except RuntimeError as error:
        raise InvalidRequest(f"device {asked!r} is not one of auto, cpu, cuda, cuda:N", param="device") from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise InvalidRequest(
            f"device {asked!r} is not there: this torch sees {torch.cuda.device_count()} CUDA devices",
            param="device",
        )
    return device


def _dtype(asked: str, device: torch.device) -> torch.dtype | str:
    """float32 on a CPU: bfloat16 without hardware support is three times slower there (engine study)."""
    if asked == "auto":
        return torch.float32 if device.type == "cpu" else "auto"
    return {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}[asked]


def stop_ids(model: PreTrainedModel) -> tuple[int, ...]:
    found: set[int] = set()
    for config in (model.generation_config, model.config.get_text_config(decoder=True)):
        ids = getattr(config, "eos_token_id", None)
        found |= set(ids) if isinstance(ids, list) else ({ids} if ids is not None else set())
    return tuple(sorted(found))


def _refuse_incomplete(report: dict[str, Any]) -> None:
    for kind, what in (("missing_keys", "lacks"), ("mismatched_keys", "has the wrong shape for")):
        keys = sorted(str(key) for key in report.get(kind, ()))
        if keys:
            more = f" and {len(keys) - 1} more" if len(keys) > 1 else ""
            raise InvalidModel(f"this checkpoint {what} {keys[0]}{more}; download it again")


def _refuse_non_finite(model: PreTrainedModel) -> None:
    for name, weights in model.named_parameters():
        if weights.is_floating_point() and not bool(torch.isfinite(weights).all()):
            raise InvalidModel(f"this checkpoint's {name} holds NaN or infinite weights; download it again")


def _reason(error: Exception, path: str) -> str:
    """The library's own first line, without the folder it was looking in."""
    text = str(error).strip().splitlines()
    return (text[0] if text else type(error).__name__).replace(path, "the folder")[:200]


@contextmanager
def _reported(on_progress: OnProgress) -> Iterator[None]:
    """transformers' own progress bar over the weights, sent to `on_progress` instead of the terminal."""

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
