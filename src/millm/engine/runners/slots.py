"""Many sequences at once: continuous batching over the model's own modules, each sequence in a row of one cache.

No left padding anywhere: a row's positions are its own, so a sequence computes what it would compute alone. Prompts
go through one at a time, in chunks; decoding rows go through together, one token each.
"""

import inspect
from collections.abc import Callable, Iterable
from collections.abc import Sequence as Sequence_
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from millm.engine import slots as rows_of
from millm.engine.cache import SlotCache, Window
from millm.engine.graphs import Graphs, recordable_experts
from millm.engine.longrope import Boundary
from millm.engine.masks import kinds_of
from millm.engine.recorder import Recorder
from millm.engine.scheduler import Pass, Row
from millm.engine.sequence import Sequence
from millm.engine.sizes import CHUNK, SHORTEST
from millm.engine.slots import Slot, Slots
from millm.errors import InvalidModel
from millm.sae.tap import Tap

Steered = Callable[[Sequence, int, Sequence_[int]], list[bool]]
"""Per token of a sequence from a position on: is a delta added there?"""

NEEDED = ("past_key_values", "attention_mask", "position_ids")


class SlotsRunner:
    def __init__(self, model: PreTrainedModel, capacity: int, steered: Steered, kv_bytes: int) -> None:
        """Raises InvalidModel if the model's forward does not take positions, masks and a cache from outside."""
        config = model.config.get_text_config(decoder=True)
        accepted = inspect.signature(model.forward).parameters
        if missing := [name for name in NEEDED if name not in accepted]:
            raise InvalidModel(f"its forward takes no {missing[0]}")
        self._kinds = kinds_of(config)
        self._model = model
        self._steered = steered
        self.kv_bytes = kv_bytes
        self._last_only = {"logits_to_keep": 1} if "logits_to_keep" in accepted else {}
        self._boundary = Boundary.of(config)
        self._longest = getattr(config, "max_position_embeddings", None)
        self._needs: dict[Slot, int] = {}
        self._slots = Slots(capacity, self._swap)
        self.cache = SlotCache(config.num_hidden_layers, capacity, SHORTEST)
        self.graphs: Graphs | None = None
        self.capacity = capacity
        self.chunk: int | None = CHUNK.get(model.device.type, CHUNK["cuda"])

    def replay(self, new_recorder: Callable[[], Recorder], taps: Callable[[], Iterable[Tap]]) -> None:
        """From here on decoding passes are recorded and replayed, where they can be."""
        self.graphs = Graphs(self._recordable, self.cache, taps, new_recorder, self._model.device)

    # ------------------------------------------------------------------------------------- rows given and taken

    def alone(self, sequence: Sequence) -> bool:
        """Must this one go through the model by itself, its prompt whole?"""
        return self._boundary.is_behind(sequence.length)

    def fits(self, sequence: Sequence) -> bool:
        """Is there memory for the keys and values it may come to have?"""
        if not (per_token := self.cache.bytes_per_token):
            return True
        length = _columns(max([sequence.most_tokens, *self._needs.values()]), self._longest)
        return (len(self._needs) + 1) * length * per_token <= self.kv_bytes

    def place(self, sequence: Sequence, *, reuse: bool) -> object:
        """Give the sequence a row; → the trail of whoever computed the prefix it goes on from, or None.

        Raises torch.OutOfMemoryError, and then nothing has changed.
        """
        self._make_room(sequence.most_tokens)
        tokens = sequence.unfed[:-1] if reuse else ()
        found = self._slots.place(self._key(sequence), self._codes(sequence, 0, tokens))
        if found.source:
            self.cache.copy(found.source.row, found.slot.row, found.cached)
        self._needs[found.slot] = sequence.most_tokens
        sequence.cache = found.slot
        sequence.fed = found.cached
        return found.trail

    def recover(self, sequence: Sequence) -> None:
        """The same keys and values are written to the same places again; recordings may be what took the memory."""
        if self.graphs:
            self.graphs.drop()

    def settle(self, sequence: Sequence) -> None:
        """The sequence's logits were finite, so whatever it attended to was: it may be gone on from."""
        slot: Slot = sequence.cache
        slot.safe = len(slot.codes)
        if self._boundary.is_crossed(sequence.length):
            self.release(sequence)
            sequence.begin_again()

    def release(self, sequence: Sequence) -> None:
        """Its row stays warm, as far as it is known to be good."""
        slot: Slot | None = sequence.cache
        if slot is None:
            return
        if slot.safe < slot.written:
            self.cache.scrub(slot.row, slice(slot.safe, slot.written))
        self._slots.release(slot)
        del self._needs[slot]
        sequence.cache = None

    def forget(self) -> None:
        """What the model computes changes from here on: no warm row is gone on from."""
        self._slots.forget()
        if self.graphs:
            self.graphs.drop()

    def keep(self, sequence: Sequence, trail: object) -> None:
        """What `place` hands to whoever goes on from this sequence's prefix."""
        sequence.cache.trail = trail

    def change(self, sequence: Sequence) -> None:
        """Its steering changed on the way: nobody else has a prefix like that."""
        if sequence.cache:
            sequence.cache.steering = object()

    # ----------------------------------------------------------------------------------------------- the passes

    def in_order(self, rows: Pass) -> Pass:
        """As they lie in the cache."""
        return tuple(sorted(rows, key=lambda row: row.sequence.cache.row))

    @torch.inference_mode()
    def run(self, rows: Pass) -> Tensor:
        """Feed the rows of one pass, in order; → logits of their last tokens `[rows, 1, V]`, or of all if scored."""
        for row in rows:
            slot: Slot = row.sequence.cache
            slot.written = max(slot.written, row.start + len(row.tokens))
        logits = self._replayed(rows)
        if logits is None:
            tokens = torch.tensor([row.tokens for row in rows], device=self._model.device)  # [B, T]
            logits = self._forward(tokens, self._window(rows), every=rows[0].is_scored)
        for row in rows:
            self._fed(row)
        return logits

    def _replayed(self, rows: Pass) -> Tensor | None:
        """None: no recording is good for this pass."""
        if self.graphs is None or rows[0].sequence.cache.row > 0 or len(rows[0].tokens) > 1 or rows[0].is_scored:
            return None
        logits = self.graphs.run([row.tokens[0] for row in rows], [row.start for row in rows])
        return None if logits is None else logits[:, None]

    def _recordable(self, tokens: Tensor, window: Window) -> Tensor:
        with recordable_experts(self._model):
            return self._forward(tokens, window)[:, -1]

    def _forward(self, tokens: Tensor, window: Window, *, every: bool = False) -> Tensor:
        """→ logits `[B, 1, V]` of the last tokens, or of `every` one `[B, T, V]`."""
        self.cache.window = window
        output = self._model(
            input_ids=tokens,
            position_ids=window.positions,
            attention_mask=self._kinds.additive(window.positions, window.columns, self._model.dtype),
            past_key_values=self.cache.view,
            use_cache=True,
            return_dict=True,
            **({} if every else self._last_only),
        )
        logits: Tensor = output.logits if every else output.logits[:, -1:]
        return logits

    def _window(self, rows: Sequence_[Row]) -> Window:
        device = self._model.device
        first = rows[0].sequence.cache.row
        columns = max(row.start + len(row.tokens) for row in rows)
        if len(rows) == 1:
            (row,) = rows
            positions = torch.arange(row.start, columns, device=device)[None]
            return Window(first, 1, columns, positions, row.start)
        assert [row.sequence.cache.row for row in rows] == list(range(first, first + len(rows)))
        positions = torch.tensor([[row.start] for row in rows], device=device)
        return Window(first, len(rows), columns, positions, None)

    def _fed(self, row: Row) -> None:
        sequence = row.sequence
        slot: Slot = sequence.cache
        slot.codes += self._codes(sequence, row.start, row.tokens)
        sequence.fed += len(row.tokens)
        if sequence.prefilling and row.chooses:
            self.start_decoding(sequence)

    def start_decoding(self, sequence: Sequence) -> None:
        """Its prompt is behind it: from here on it goes together with the others, a token at a time."""
        sequence.prefilling = False
        if not self.alone(sequence):
            self._slots.decode(sequence.cache)

    def _codes(self, sequence: Sequence, start: int, tokens: Sequence_[int]) -> list[int]:
        steered = self._steered(sequence, start, tokens)
        return [rows_of.code(token, here) for token, here in zip(tokens, steered, strict=True)]

    def _key(self, sequence: Sequence) -> object:
        taps = sequence.steering.taps if sequence.steering else ()
        return taps, self._boundary.is_behind(sequence.length)

    # ------------------------------------------------------------------------------------------------- the cache

    def _swap(self, one: Slot, other: Slot) -> None:
        self.cache.swap(one.row, other.row, max(one.written, other.written))

    def _make_room(self, needed: int) -> None:
        """A free row, and columns enough for everybody."""
        longest = max([needed, *self._needs.values()])
        if longest <= self.cache.length and len(self._needs) < len(self._slots):
            return
        length = _columns(longest, self._longest)
        rows = self.capacity
        if per_token := self.cache.bytes_per_token:
            rows = max(min(rows, self.kv_bytes // (length * per_token)), len(self._needs) + 1)
        self._slots.resize(rows, length)
        try:
            self.cache.resize(rows, length, lambda row: self._slots[row].written)
        except (RuntimeError, MemoryError):
            self._slots.resize(self.cache.rows, self.cache.length)
            raise


def _columns(needed: int, longest: Any) -> int:
    """The next power of two, but not beyond the model's context."""
    columns = max(SHORTEST, 1 << (needed - 1).bit_length())
    return max(min(columns, longest), needed) if longest else columns
