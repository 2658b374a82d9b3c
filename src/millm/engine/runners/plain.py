"""One sequence at a time through the model's own cache: works for anything `AutoModelForCausalLM` loads."""

import inspect

import torch
from torch import Tensor
from transformers import PreTrainedModel

from millm.engine.scheduler import StepPlan
from millm.engine.sequence import Sequence
from millm.errors import InvalidModel

CACHE_NAMES = ("past_key_values", "cache_params", "state")
"""What the architectures of transformers 5 call their cache: attention and hybrid, Mamba, RWKV."""


class PlainRunner:
    """The same forward passes as `model.generate`, so an unsteered greedy answer is bit-identical to it."""

    name = "plain"
    capacity = 1

    def __init__(self, model: PreTrainedModel) -> None:
        accepted = inspect.signature(model.forward).parameters
        cache_name = next((name for name in CACHE_NAMES if name in accepted), None)
        if cache_name is None:
            raise InvalidModel(f"{type(model).__name__} keeps no cache that miLLM knows ({', '.join(CACHE_NAMES)})")
        self._model = model
        self._cache_name = cache_name
        self._last_only = {"logits_to_keep": 1} if "logits_to_keep" in accepted else {}

    @torch.inference_mode()
    def run(self, plan: StepPlan) -> Tensor:
        """Feed the plan's one row; → logits of its last token `[1, V]`."""
        (row,) = plan.rows
        sequence = row.sequence
        output = self._model(
            input_ids=torch.tensor([row.tokens], device=self._model.device),  # [1, T]
            use_cache=True,
            return_dict=True,
            **{self._cache_name: sequence.cache},
            **self._last_only,
        )
        sequence.cache = output[self._cache_name]
        sequence.fed += len(row.tokens)
        logits: Tensor = output.logits[:, -1]
        return logits

    def release(self, sequence: Sequence) -> None:
        sequence.cache = None
