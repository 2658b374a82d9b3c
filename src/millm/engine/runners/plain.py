"""One sequence at a time through the model's own cache: works for anything `AutoModelForCausalLM` loads."""

import inspect

import torch
from torch import Tensor
from transformers import PreTrainedModel

from millm.engine.longrope import LongRopeBoundary
from millm.engine.scheduler import ForwardPass
from millm.engine.sequence import Sequence
from millm.errors import InvalidModel

CACHE_NAMES = ("past_key_values", "cache_params", "state")
"""What the architectures of transformers 5 call their cache: attention and hybrid, Mamba, RWKV."""


class PlainRunner:
    """The same forward passes as `model.generate`, so an unsteered greedy answer is bit-identical to it."""

    capacity = 1
    prefill_chunk: int | None = None
    kv_cache_bytes = 0

    def __init__(self, model: PreTrainedModel) -> None:
        accepted = inspect.signature(model.forward).parameters
        cache_name = next((name for name in CACHE_NAMES if name in accepted), None)
        if cache_name is None:
            raise InvalidModel(f"{type(model).__name__} keeps no cache that miLLM knows ({', '.join(CACHE_NAMES)})")
        self._model = model
        self._cache_name = cache_name
        self._boundary = LongRopeBoundary.from_config(model.config.get_text_config(decoder=True))
        self._last_logits_option = {"logits_to_keep": 1} if "logits_to_keep" in accepted else {}

    def runs_alone(self, sequence: Sequence) -> bool:
        return True

    def fits(self, sequence: Sequence) -> bool:
        return True

    def allocate(self, sequence: Sequence, *, reuse: bool) -> object:
        """Nothing is remembered from one sequence to the next."""
        return None

    def sort_rows(self, rows: ForwardPass) -> ForwardPass:
        return rows

    @torch.inference_mode()
    def run(self, rows: ForwardPass) -> Tensor:
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
            **({} if row.is_scored else self._last_logits_option),
        )
        sequence.cache = output[self._cache_name]
        sequence.num_computed_tokens += len(row.tokens)
        sequence.is_prefilling = False
        logits: Tensor = output.logits[:, -last:]
        return logits

    def commit(self, sequence: Sequence) -> None:
        if self._boundary.is_crossed(sequence.length):
            self.release(sequence)
            sequence.restart()

    def recover(self, sequence: Sequence) -> None:
        """A pass that failed half-way may have left some layers' caches a token longer than others."""
        self.release(sequence)
        sequence.restart()

    def release(self, sequence: Sequence) -> None:
        sequence.cache = None

    def store_prefix_state(self, sequence: Sequence, prefix_state: object) -> None:
        pass

    def on_steering_change(self, sequence: Sequence) -> None:
        pass

    def invalidate_cache(self) -> None:
        pass
