"""Many sequences at once: continuous batching over the model's own modules, each sequence in a row of one cache.

No left padding anywhere: a row's positions are its own, so a sequence computes what it would compute alone. Prompts
go through one at a time, in chunks; decoding rows go through together, one token each.

One sequence at a time through the model's own cache: works for anything `AutoModelForCausalLM` loads.

What the loop asks of a runner: the model's forward passes, and the keys and values behind them.
"""

import inspect
from collections.abc import Callable, Iterable
from collections.abc import Sequence as Sequence_
from typing import Any, Protocol

import torch
from torch import Tensor
from transformers import PreTrainedModel

from millm.engine import kv_cache as rows_of
from millm.engine.cuda_graphs import GraphRecorder, GraphRunner, recordable_experts
from millm.engine.kv_cache import CacheWindow, LongRopeBoundary, Slot, SlotAllocator, SlotCache, attention_mask_kinds
from millm.engine.limits import MIN_CACHE_COLUMNS, PREFILL_CHUNK_TOKENS
from millm.engine.scheduler import ForwardPass, ScheduledRow, Sequence
from millm.errors import InvalidModel
from millm.sae.steering_hook import SteeringHook

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


class Runner(Protocol):
    capacity: int
    """Sequences that may run at once."""
    prefill_chunk: int | None
    """Tokens of prompts per step; None: a prompt is fed whole."""
    kv_cache_bytes: int
    """Most that it holds of keys and values; 0: whatever one sequence needs."""

    def runs_alone(self, sequence: Sequence) -> bool:
        """Must this one go through the model by itself, its prompt whole?"""

    def fits(self, sequence: Sequence) -> bool:
        """Is there memory for the keys and values it may come to have?"""

    def allocate(self, sequence: Sequence, *, reuse: bool) -> object:
        """Room for its keys and values; sets `fed` to what is there already, → the trail of who computed that.

        Raises torch.OutOfMemoryError, and then nothing has changed.
        """

    def sort_rows(self, rows: ForwardPass) -> ForwardPass:
        """The rows of a pass in the order in which `run` takes them."""

    def run(self, rows: ForwardPass) -> Tensor:
        """Feed the rows of one pass; → logits of their last tokens `[rows, 1, V]`, or of all where one is scored.

        What it raises changed nothing.
        """

    def recover(self, sequence: Sequence) -> None:
        """A pass with this sequence failed: make it fit to be run again."""

    def commit(self, sequence: Sequence) -> None:
        """A token was chosen from finite logits."""

    def store_prefix_state(self, sequence: Sequence, prefix_state: object) -> None:
        """What `place` is to hand to whoever goes on from this sequence's prefix."""

    def on_steering_change(self, sequence: Sequence) -> None:
        """The sequence's steering changes from here on."""

    def release(self, sequence: Sequence) -> None:
        """The sequence is over, or has to begin again."""

    def invalidate_cache(self) -> None:
        """What the model computes changes from here on: nothing of before is gone on from."""


SteerMaskFunction = Callable[[Sequence, int, Sequence_[int]], list[bool]]
"""Per token of a sequence from a position on: is a delta added there?"""
REQUIRED_ARGUMENTS = ("past_key_values", "attention_mask", "position_ids")


class SlotsRunner:
    def __init__(
        self, model: PreTrainedModel, capacity: int, steer_mask: SteerMaskFunction, kv_cache_bytes: int
    ) -> None:
        """Raises InvalidModel if the model's forward does not take positions, masks and a cache from outside."""
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
        self._slots = SlotAllocator(capacity, self._swap)
        self.cache = SlotCache(config.num_hidden_layers, capacity, MIN_CACHE_COLUMNS)
        self.graphs: GraphRunner | None = None
        self.capacity = capacity
        self.prefill_chunk: int | None = PREFILL_CHUNK_TOKENS.get(model.device.type, PREFILL_CHUNK_TOKENS["cuda"])

    def enable_graphs(
        self, new_recorder: Callable[[], GraphRecorder], active_hooks: Callable[[], Iterable[SteeringHook]]
    ) -> None:
        """From here on decoding passes are recorded and replayed, where they can be."""
        self.graphs = GraphRunner(self._forward_for_graph, self.cache, active_hooks, new_recorder, self._model.device)

    # ------------------------------------------------------------------------------------- rows given and taken

    def runs_alone(self, sequence: Sequence) -> bool:
        """Must this one go through the model by itself, its prompt whole?"""
        return self._boundary.is_exceeded(sequence.length)

    def fits(self, sequence: Sequence) -> bool:
        """Is there memory for the keys and values it may come to have?"""
        if not (per_token := self.cache.bytes_per_token):
            return True
        length = _round_up_columns(max([sequence.max_length, *self._max_lengths.values()]), self._max_positions)
        return (len(self._max_lengths) + 1) * length * per_token <= self.kv_cache_bytes

    def allocate(self, sequence: Sequence, *, reuse: bool) -> object:
        """Give the sequence a row; → the trail of whoever computed the prefix it goes on from, or None.

        Raises torch.OutOfMemoryError, and then nothing has changed.
        """
        self._ensure_space(sequence.max_length)
        tokens = sequence.uncomputed_tokens[:-1] if reuse else ()
        found = self._slots.allocate(self._prefix_key(sequence), self._token_keys(sequence, 0, tokens))
        if found.source:
            self.cache.copy(found.source.row, found.slot.row, found.cached_count)
        self._max_lengths[found.slot] = sequence.max_length
        sequence.cache = found.slot
        sequence.num_computed_tokens = found.cached_count
        return found.prefix_state

    def recover(self, sequence: Sequence) -> None:
        """The same keys and values are written to the same places again; recordings may be what took the memory."""
        if self.graphs:
            self.graphs.drop()

    def commit(self, sequence: Sequence) -> None:
        """The sequence's logits were finite, so whatever it attended to was: it may be gone on from."""
        slot: Slot = sequence.cache
        slot.finite_count = len(slot.token_keys)
        if self._boundary.is_crossed(sequence.length):
            self.release(sequence)
            sequence.restart()

    def release(self, sequence: Sequence) -> None:
        """Its row stays warm, as far as it is known to be good."""
        slot: Slot | None = sequence.cache
        if slot is None:
            return
        if slot.finite_count < slot.written_count:
            self.cache.scrub(slot.row, slice(slot.finite_count, slot.written_count))
        self._slots.release(slot)
        del self._max_lengths[slot]
        sequence.cache = None

    def invalidate_cache(self) -> None:
        """What the model computes changes from here on: no warm row is gone on from."""
        self._slots.invalidate()
        if self.graphs:
            self.graphs.drop()

    def store_prefix_state(self, sequence: Sequence, prefix_state: object) -> None:
        """What `place` hands to whoever goes on from this sequence's prefix."""
        sequence.cache.trail = prefix_state

    def on_steering_change(self, sequence: Sequence) -> None:
        """Its steering changed on the way: nobody else has a prefix like that."""
        if sequence.cache:
            sequence.cache.steering = object()

    # ----------------------------------------------------------------------------------------------- the passes

    def sort_rows(self, rows: ForwardPass) -> ForwardPass:
        """As they lie in the cache."""
        return tuple(sorted(rows, key=lambda row: row.sequence.cache.row))

    @torch.inference_mode()
    def run(self, rows: ForwardPass) -> Tensor:
        """Feed the rows of one pass, in order; → logits of their last tokens `[rows, 1, V]`, or of all if scored."""
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
        """None: no recording is good for this pass."""
        if self.graphs is None or rows[0].sequence.cache.row > 0 or len(rows[0].tokens) > 1 or rows[0].is_scored:
            return None
        logits = self.graphs.run([row.tokens[0] for row in rows], [row.start for row in rows])
        return None if logits is None else logits[:, None]

    def _forward_for_graph(self, tokens: Tensor, window: CacheWindow) -> Tensor:
        with recordable_experts(self._model):
            return self._forward(tokens, window)[:, -1]

    def _forward(self, tokens: Tensor, window: CacheWindow, *, all_logits: bool = False) -> Tensor:
        """→ logits `[B, 1, V]` of the last tokens, or of `every` one `[B, T, V]`."""
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
        """Its prompt is behind it: from here on it goes together with the others, a token at a time."""
        sequence.is_prefilling = False
        if not self.runs_alone(sequence):
            self._slots.move_to_decoding(sequence.cache)

    def _token_keys(self, sequence: Sequence, start: int, tokens: Sequence_[int]) -> list[int]:
        steered = self._steer_mask(sequence, start, tokens)
        return [rows_of.token_key(token, here) for token, here in zip(tokens, steered, strict=True)]

    def _prefix_key(self, sequence: Sequence) -> object:
        taps = sequence.steering.by_sae if sequence.steering else ()
        return taps, self._boundary.is_exceeded(sequence.length)

    # ------------------------------------------------------------------------------------------------- the cache

    def _swap(self, one: Slot, other: Slot) -> None:
        self.cache.swap(one.row, other.row, max(one.written_count, other.written_count))

    def _ensure_space(self, max_length: int) -> None:
        """A free row, and columns enough for everybody."""
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
    """The next power of two, but not beyond the model's context."""
    columns = max(MIN_CACHE_COLUMNS, 1 << (needed - 1).bit_length())
    return max(min(columns, max_positions), needed) if max_positions else columns
