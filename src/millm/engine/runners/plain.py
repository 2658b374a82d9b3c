"""One sequence at a time through the model's own cache: works for anything `AutoModelForCausalLM` loads."""

import inspect

import torch
from torch import Tensor
from transformers import PreTrainedModel

from millm.engine.longrope import Boundary
from millm.engine.scheduler import Pass
from millm.engine.sequence import Sequence
from millm.errors import InvalidModel

CACHE_NAMES = ("past_key_values", "cache_params", "state")
"""What the architectures of transformers 5 call their cache: attention and hybrid, Mamba, RWKV."""


class PlainRunner:
    """The same forward passes as `model.generate`, so an unsteered greedy answer is bit-identical to it."""

    capacity = 1
    chunk: int | None = None
    kv_bytes = 0

    def __init__(self, model: PreTrainedModel) -> None:
        accepted = inspect.signature(model.forward).parameters
        cache_name = next((name for name in CACHE_NAMES if name in accepted), None)
        if cache_name is None:
            raise InvalidModel(f"{type(model).__name__} keeps no cache that miLLM knows ({', '.join(CACHE_NAMES)})")
        self._model = model
        self._cache_name = cache_name
        self._boundary = Boundary.of(model.config.get_text_config(decoder=True))
        self._last_only = {"logits_to_keep": 1} if "logits_to_keep" in accepted else {}

    def alone(self, sequence: Sequence) -> bool:
        return True

    def fits(self, sequence: Sequence) -> bool:
        return True

    def place(self, sequence: Sequence, *, reuse: bool) -> object:
        """Nothing is remembered from one sequence to the next."""
        return None

    def in_order(self, rows: Pass) -> Pass:
        return rows

    @torch.inference_mode()
    def run(self, rows: Pass) -> Tensor:
        """Feed the one row; → logits of its last token `[1, 1, V]`, or of all if it is scored."""
        (row,) = rows
        last = len(row.tokens) if row.is_scored else 1
        sequence = row.sequence
        if row.start == 0:
            sequence.cache = None
        output = self._model(
            input_ids=torch.tensor([row.tokens], device=self._model.device),  # [1, T]
            use_cache=True,
            return_dict=True,
            **{self._cache_name: sequence.cache},
            **({} if row.is_scored else self._last_only),
        )
        sequence.cache = output[self._cache_name]
        sequence.fed += len(row.tokens)
        sequence.prefilling = False
        logits: Tensor = output.logits[:, -last:]
        return logits

    def settle(self, sequence: Sequence) -> None:
        if self._boundary.is_crossed(sequence.length):
            self.release(sequence)
            sequence.begin_again()

    def recover(self, sequence: Sequence) -> None:
        """A pass that failed half-way may have left some layers' caches a token longer than others."""
        self.release(sequence)
        sequence.begin_again()

    def release(self, sequence: Sequence) -> None:
        sequence.cache = None

    def keep(self, sequence: Sequence, trail: object) -> None:
        pass

    def change(self, sequence: Sequence) -> None:
        pass

    def forget(self) -> None:
        pass
