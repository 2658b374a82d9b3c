"""Runners for a model's forward passes: batched with a shared cache, or one sequence at a time with the model's own."""

import inspect
from collections.abc import Callable, Iterable
from collections.abc import Sequence as Sequence_
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from millm.engine.cuda_graphs import GraphRecorder, GraphRunner, recordable_experts
from millm.engine.kv_cache import (
    CacheWindow,
    LongRopeBoundary,
    Slot,
    SlotAllocator,
    SlotCache,
    attention_mask_kinds,
    token_key,
)
from millm.engine.limits import MIN_CACHE_COLUMNS, PREFILL_CHUNK_TOKENS
from millm.engine.scheduler import ForwardPass, ScheduledRow, Sequence
from millm.errors import InvalidModel
from millm.sae.steering_hook import SteeringHook

CACHE_NAMES = ("past_key_values", "cache_params", "state")
"""Names of the cache argument in transformers 5: attention and hybrid models, Mamba, RWKV."""
REQUIRED_ARGUMENTS = ("past_key_values", "attention_mask", "position_ids")
SteerMaskFunction = Callable[[Sequence, int, Sequence_[int]], list[bool]]
"""(sequence, first position, tokens) → for each token, whether a delta is added there."""


class Runner:
    """Interface of a runner; the defaults are those of one without a shared cache."""

    capacity: int = 1  # Maximum number of sequences that run at once
    prefill_chunk: int | None = None  # Prompt tokens per step; None: a prompt is one chunk
    kv_cache_bytes: int = 0  # Budget for keys and values; 0: none, one sequence takes what it needs

    def runs_alone(self, sequence: Sequence) -> bool:
        """True if the sequence never shares a pass, and its prompt is one chunk."""
        return True

    def fits(self, sequence: Sequence) -> bool:
        """True if the budget covers the sequence's maximum length."""
        return True

    def allocate(self, sequence: Sequence, *, reuse: bool) -> object:
        """Allocate cache and set `num_computed_tokens` to a reused prefix; → the prefix's `prefix_state`, or None.

        Raises torch.OutOfMemoryError without any change.
        """
        return None

    def sort_rows(self, rows: ForwardPass) -> ForwardPass:
        """The rows of a pass in the order that `run` expects."""
        return rows

    def run(self, rows: ForwardPass) -> Tensor:
        """Run one pass; → logits `[rows, 1, V]` of the last tokens, or `[rows, T, V]` if the rows are scored."""
        raise NotImplementedError

    def commit(self, sequence: Sequence) -> None:
        """Called when a token was sampled from finite logits."""
        raise NotImplementedError

    def recover(self, sequence: Sequence) -> None:
        """Called after a failed pass: make the sequence ready to run again."""
        raise NotImplementedError

    def release(self, sequence: Sequence) -> None:
        """Free the sequence's cache."""
        raise NotImplementedError

    def store_prefix_state(self, sequence: Sequence, prefix_state: object) -> None:
        """Set what `allocate` returns to a sequence that reuses the prefix."""

    def on_steering_change(self, sequence: Sequence) -> None:
        """Called when the sequence's steering changes, which ends the reuse of its prefix."""

    def invalidate_cache(self) -> None:
        """Called when the model computes other keys and values from now on."""


class PlainRunner(Runner):
    """The forward passes of `model.generate`, so that unsteered greedy output is bit-identical to it."""

    def __init__(self, model: PreTrainedModel) -> None:
        accepted = inspect.signature(model.forward).parameters
        cache_name = next((name for name in CACHE_NAMES if name in accepted), None)
        if cache_name is None:
            raise InvalidModel(f"{type(model).__name__} takes no known cache ({', '.join(CACHE_NAMES)})")
        self._model = model
        self._cache_name = cache_name
        self._boundary = LongRopeBoundary.from_config(model.config.get_text_config(decoder=True))
        self._last_logits_option = {"logits_to_keep": 1} if "logits_to_keep" in accepted else {}

    @torch.inference_mode()
    def run(self, rows: ForwardPass) -> Tensor:
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
        """A failed pass may leave some layers' caches a token longer than others."""
        self.release(sequence)
        sequence.restart()

    def release(self, sequence: Sequence) -> None:
        sequence.cache = None


class SlotsRunner(Runner):
    """Continuous batching, with one row of a shared cache per sequence."""

    def __init__(
        self, model: PreTrainedModel, capacity: int, steer_mask: SteerMaskFunction, kv_cache_bytes: int
    ) -> None:
        """Raises InvalidModel if the model's forward has no positions, masks or cache."""
        config = model.config.get_text_config(decoder=True)
        accepted = inspect.signature(model.forward).parameters
        if missing := [name for name in REQUIRED_ARGUMENTS if name not in accepted]:
            raise InvalidModel(f"its forward takes no {missing[0]}")
        self._mask_kinds = attention_mask_kinds(config)
        self._model = model
        self._steer_mask = steer_mask
        self.kv_cache_bytes = kv_cache_bytes
        self._last_logits_option = {"logits_to_keep": 1} if "logits_to_keep" in accepted else {}
        self._boundary = LongRopeBoundary.from_config(config)
        self._max_positions = getattr(config, "max_position_embeddings", None)
        self._max_lengths: dict[Slot, int] = {}
        self.cache = SlotCache(config.num_hidden_layers, capacity, MIN_CACHE_COLUMNS)
        self._slots = SlotAllocator(
            capacity, lambda a, b: self.cache.swap(a.row, b.row, max(a.written_count, b.written_count))
        )
        self.graphs: GraphRunner | None = None
        self.capacity = capacity
        self.prefill_chunk: int | None = PREFILL_CHUNK_TOKENS.get(model.device.type, PREFILL_CHUNK_TOKENS["cuda"])

    def enable_graphs(
        self, new_recorder: Callable[[], GraphRecorder], active_hooks: Callable[[], Iterable[SteeringHook]]
    ) -> None:
        self.graphs = GraphRunner(self._forward_for_graph, self.cache, active_hooks, new_recorder, self._model.device)

    def runs_alone(self, sequence: Sequence) -> bool:
        return self._boundary.is_exceeded(sequence.length)

    def fits(self, sequence: Sequence) -> bool:
        if not (per_token := self.cache.bytes_per_token):
            return True
        length = _round_up_columns(max([sequence.max_length, *self._max_lengths.values()]), self._max_positions)
        return (len(self._max_lengths) + 1) * length * per_token <= self.kv_cache_bytes

    def allocate(self, sequence: Sequence, *, reuse: bool) -> object:
        self._ensure_space(sequence.max_length)
        tokens = sequence.uncomputed_tokens[:-1] if reuse else ()
        prefix_key = sequence.steering.by_sae if sequence.steering else (), self._boundary.is_exceeded(sequence.length)
        allocation = self._slots.allocate(prefix_key, self._token_keys(sequence, 0, tokens))
        if allocation.source:
            self.cache.copy(allocation.source.row, allocation.slot.row, allocation.cached_count)
        self._max_lengths[allocation.slot] = sequence.max_length
        sequence.cache = allocation.slot
        sequence.num_computed_tokens = allocation.cached_count
        return allocation.prefix_state

    def recover(self, sequence: Sequence) -> None:
        """The next pass overwrites the same keys and values; recorded graphs may have used up the memory."""
        if self.graphs:
            self.graphs.drop()

    def commit(self, sequence: Sequence) -> None:
        """Finite logits prove that all keys and values before them are finite."""
        slot: Slot = sequence.cache
        slot.finite_count = len(slot.token_keys)
        if self._boundary.is_crossed(sequence.length):
            self.release(sequence)
            sequence.restart()

    def release(self, sequence: Sequence) -> None:
        """The row stays warm up to its finite columns."""
        slot: Slot | None = sequence.cache
        if slot is None:
            return
        if slot.finite_count < slot.written_count:
            self.cache.scrub(slot.row, slice(slot.finite_count, slot.written_count))
        self._slots.release(slot)
        del self._max_lengths[slot]
        sequence.cache = None

    def invalidate_cache(self) -> None:
        self._slots.invalidate()
        if self.graphs:
            self.graphs.drop()

    def store_prefix_state(self, sequence: Sequence, prefix_state: object) -> None:
        sequence.cache.prefix_state = prefix_state

    def on_steering_change(self, sequence: Sequence) -> None:
        if sequence.cache:
            sequence.cache.steering = object()  # equal to no other

    def sort_rows(self, rows: ForwardPass) -> ForwardPass:
        return tuple(sorted(rows, key=lambda row: row.sequence.cache.row))

    @torch.inference_mode()
    def run(self, rows: ForwardPass) -> Tensor:
        for row in rows:
            slot: Slot = row.sequence.cache
            slot.written_count = max(slot.written_count, row.start + len(row.tokens))
        logits = self._run_graph(rows)
        if logits is None:
            tokens = torch.tensor([row.tokens for row in rows], device=self._model.device)  # [B, T]
            logits = self._forward(tokens, self._window(rows), all_logits=rows[0].is_scored)
        for row in rows:
            self._mark_computed(row)
        return logits

    def _run_graph(self, rows: ForwardPass) -> Tensor | None:
        """None if the pass cannot be replayed."""
        if self.graphs is None or rows[0].sequence.cache.row > 0 or len(rows[0].tokens) > 1 or rows[0].is_scored:
            return None
        logits = self.graphs.run([row.tokens[0] for row in rows], [row.start for row in rows])
        return None if logits is None else logits[:, None]

    def _forward_for_graph(self, tokens: Tensor, window: CacheWindow) -> Tensor:
        with recordable_experts(self._model):
            return self._forward(tokens, window)[:, -1]

    def _forward(self, tokens: Tensor, window: CacheWindow, *, all_logits: bool = False) -> Tensor:
        """→ logits `[B, 1, V]` of the last tokens, or `[B, T, V]` of all."""
        self.cache.window = window
        output = self._model(
            input_ids=tokens,
            position_ids=window.positions,
            attention_mask=self._mask_kinds.additive_masks(window.positions, window.columns, self._model.dtype),
            past_key_values=self.cache.past_key_values,
            use_cache=True,
            return_dict=True,
            **({} if all_logits else self._last_logits_option),
        )
        logits: Tensor = output.logits if all_logits else output.logits[:, -1:]
        return logits

    def _window(self, rows: Sequence_[ScheduledRow]) -> CacheWindow:
        device = self._model.device
        first = rows[0].sequence.cache.row
        columns = max(row.start + len(row.tokens) for row in rows)
        if len(rows) == 1:
            (row,) = rows
            positions = torch.arange(row.start, columns, device=device)[None]
            return CacheWindow(first, 1, columns, positions, row.start)
        assert [row.sequence.cache.row for row in rows] == list(range(first, first + len(rows)))
        positions = torch.tensor([[row.start] for row in rows], device=device)
        return CacheWindow(first, len(rows), columns, positions, None)

    def _mark_computed(self, row: ScheduledRow) -> None:
        sequence = row.sequence
        slot: Slot = sequence.cache
        slot.token_keys += self._token_keys(sequence, row.start, row.tokens)
        sequence.num_computed_tokens += len(row.tokens)
        if sequence.is_prefilling and row.is_last_chunk:
            self.start_decoding(sequence)

    def start_decoding(self, sequence: Sequence) -> None:
        sequence.is_prefilling = False
        if not self.runs_alone(sequence):
            self._slots.move_to_decoding(sequence.cache)

    def _token_keys(self, sequence: Sequence, start: int, tokens: Sequence_[int]) -> list[int]:
        steered = self._steer_mask(sequence, start, tokens)
        return [token_key(token, is_steered) for token, is_steered in zip(tokens, steered, strict=True)]

    def _ensure_space(self, max_length: int) -> None:
        """Grow the cache unless it has a free row and enough columns for every sequence."""
        longest = max([max_length, *self._max_lengths.values()])
        if longest <= self.cache.length and len(self._max_lengths) < len(self._slots):
            return
        length = _round_up_columns(longest, self._max_positions)
        rows = self.capacity
        if per_token := self.cache.bytes_per_token:
            rows = max(min(rows, self.kv_cache_bytes // (length * per_token)), len(self._max_lengths) + 1)
        self._slots.resize(rows, length)
        try:
            self.cache.resize(rows, length, lambda row: self._slots[row].written_count)
        except (RuntimeError, MemoryError):
            self._slots.resize(self.cache.rows, self.cache.length)
            raise


def _round_up_columns(needed: int, max_positions: Any) -> int:
    """The next power of two, up to the model's context length."""
    columns = max(MIN_CACHE_COLUMNS, 1 << (needed - 1).bit_length())
    return max(min(columns, max_positions), needed) if max_positions else columns
