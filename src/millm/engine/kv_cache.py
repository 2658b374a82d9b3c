"""The batched KV cache with one row per sequence: tensors, attention, masks, and allocation and reuse of rows."""

import itertools
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.cache_utils import Cache, CacheLayerMixin
from transformers.masking_utils import eager_mask

from millm.engine.limits import SCRATCH_COLUMNS
from millm.errors import InvalidModel

GROUPED_QUERY_ATTENTION = "millm_gqa"
SUPPORTED_LAYER_TYPES = {"full_attention", "sliding_attention"}
MIN_REUSED_PREFIX = 8  # Shorter common prefixes are recomputed


def grouped_query_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    softcap: float | None = None,
    **_options: object,
) -> tuple[Tensor, None]:
    """query `[B, H, T, D]`, key and value `[B, G, S, D]`, additive mask `[B, 1, T, S]` → `[B, T, H, D]`.

    softmax(softcap·tanh(q·kᵀ·scaling / softcap) + mask)·v, each of the G key heads shared by H/G query heads.
    transformers' `eager` and `sdpa` copy key heads (`repeat_kv`) in all but the simplest case, and `sdpa` has no
    softcap.
    """
    batch, heads, tokens, depth = query.shape
    scaling = depth**-0.5 if scaling is None else scaling
    if tokens > 1 and softcap is None:
        out = functional.scaled_dot_product_attention(
            query, key, value, attn_mask=attention_mask, scale=scaling, enable_gqa=key.shape[1] != heads
        )
        return out.transpose(1, 2).contiguous(), None
    groups = key.shape[1]
    # one matrix product for all queries that share a key head
    grouped = query.reshape(batch, groups, (heads // groups) * tokens, depth)  # [B, G, H/G·T, D]
    scores = torch.matmul(grouped, key.transpose(2, 3)) * scaling  # [B, G, H/G·T, S]
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
    if attention_mask is not None:
        shape = scores.shape
        scores = (scores.view(batch, groups, -1, tokens, shape[-1]) + attention_mask[:, :, None]).view(shape)
    weights = torch.softmax(scores, dim=-1, dtype=torch.float32).to(query.dtype)
    mixed = torch.matmul(weights, value).view(batch, heads, tokens, value.shape[3])
    return mixed.transpose(1, 2).contiguous(), None


AttentionInterface.register(GROUPED_QUERY_ATTENTION, grouped_query_attention)
AttentionMaskInterface.register(GROUPED_QUERY_ATTENTION, eager_mask)


@dataclass(frozen=True)
class CacheWindow:
    """Adjacent rows of the cache that one forward pass reads and writes."""

    first_row: int
    rows: int
    columns: int  # Number of keys per row, up to the longest row's last
    positions: Tensor  # [rows, T] int64
    start_column: int | None  # Column of the first new key, the same for every row; None: each row has its own
    write_columns: Tensor | None = None  # [rows, 1] int64, where these are not the positions


class SlotCache:
    """`rows × length` keys and values per layer, allocated in the first pass, when their shape is known."""

    def __init__(self, layers: int, rows: int, length: int) -> None:
        self.rows = rows
        self.length = length
        self._window: CacheWindow | None = None
        self._write_indices_by_shape: dict[tuple[int, ...], Tensor] = {}
        self.allocation_version = 0  # Incremented when keys and values move to other tensors
        self._layers = [_SlotLayer(self) for _ in range(layers)]
        self.past_key_values = Cache(layers=list(self._layers))

    @property
    def window(self) -> CacheWindow | None:
        """Window of the current pass; set before each."""
        return self._window

    @window.setter
    def window(self, window: CacheWindow) -> None:
        self._window = window
        self._write_indices_by_shape.clear()

    def write_indices(self, heads: int, length: int) -> Tensor:
        """Indices `[rows·H]` into `[N·H·S, D]` at which the pass writes one key per row."""
        indices = self._write_indices_by_shape.get((heads, length))
        if indices is None:
            window = self._window
            assert window is not None
            device = window.positions.device
            row = torch.arange(window.first_row, window.first_row + window.rows, device=device)
            head = torch.arange(heads, device=device)
            column = window.positions if window.write_columns is None else window.write_columns  # [rows, 1]
            indices = ((row[:, None] * heads + head) * length + column).view(-1)
            self._write_indices_by_shape[heads, length] = indices
        return indices

    @property
    def bytes_per_token(self) -> int:
        """Over all layers; 0 before the first pass."""
        return sum(tensor.element_size() * tensor.shape[1] * tensor.shape[3] for tensor in self._tensors())

    @torch.inference_mode()
    def resize(self, rows: int, length: int, columns_to_copy: Callable[[int], int]) -> None:
        """Copy the first `columns_to_copy(row)` columns to new tensors, one layer at a time to save memory.

        Raises torch.OutOfMemoryError; `rows` and `length` are then the smallest of any layer.
        """
        try:
            for layer in self._layers:
                layer.resize(rows, length, columns_to_copy)
        finally:
            tensors = self._tensors()
            self.rows = min((tensor.shape[0] for tensor in tensors), default=rows)
            self.length = min((tensor.shape[2] - SCRATCH_COLUMNS for tensor in tensors), default=length)
            self.allocation_version += 1

    @torch.inference_mode()
    def copy(self, source: int, target: int, columns: int) -> None:
        for tensor in self._tensors():
            tensor[target, :, :columns] = tensor[source, :, :columns]

    @torch.inference_mode()
    def swap(self, one: int, other: int, columns: int) -> None:
        for tensor in self._tensors():
            copy = tensor[one, :, :columns].clone()
            tensor[one, :, :columns] = tensor[other, :, :columns]
            tensor[other, :, :columns] = copy

    @torch.inference_mode()
    def scrub(self, row: int, columns: slice) -> None:
        """Zero columns that may not be finite: even a masked NaN makes every sum NaN."""
        for tensor in self._tensors():
            tensor[row, :, columns] = 0

    def _tensors(self) -> list[Tensor]:
        return [tensor for layer in self._layers if layer.is_initialized for tensor in (layer.keys, layer.values)]


class _SlotLayer(CacheLayerMixin):  # type: ignore[no-untyped-call]
    is_sliding = False  # sliding windows are in the mask; rows hold all of their keys
    is_compileable = True
    keys: Tensor
    values: Tensor

    def __init__(self, cache: SlotCache) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._cache = cache

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        self.dtype, self.device = key_states.dtype, key_states.device
        self.keys = _zeros(key_states, self._cache.rows, self._cache.length)
        self.values = _zeros(value_states, self._cache.rows, self._cache.length)
        self.is_initialized = True

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: object, **kwargs: object
    ) -> tuple[Tensor, Tensor]:
        """New keys and values `[rows, H, T, D]` → views of the window's `[rows, H, columns, D]`."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        window = self._cache.window
        assert window is not None
        rows = slice(window.first_row, window.first_row + window.rows)
        for tensor, new in ((self.keys, key_states), (self.values, value_states)):
            if window.start_column is None:
                heads, length, depth = tensor.shape[1:]
                tensor.view(-1, depth).index_copy_(0, self._cache.write_indices(heads, length), new.reshape(-1, depth))
            else:
                tensor[rows, :, window.start_column : window.start_column + new.shape[2]] = new
        return self.keys[rows, :, : window.columns], self.values[rows, :, : window.columns]

    def resize(self, rows: int, length: int, columns_to_copy: Callable[[int], int]) -> None:
        if self.is_initialized:
            self.keys = _resize_tensor(self.keys, rows, length, columns_to_copy)
            self.values = _resize_tensor(self.values, rows, length, columns_to_copy)

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return (self._cache.window.columns if self._cache.window else 0), 0

    def get_seq_length(self) -> int:
        """Number of keys before this pass in its longest row."""
        window = self._cache.window
        return window.columns - window.positions.shape[1] if window else 0

    def get_max_length(self) -> int:
        return self._cache.length


def _zeros(like: Tensor, rows: int, length: int) -> Tensor:
    """Zeros, so that unwritten columns are finite; a CPU allocates the pages when they are written."""
    return torch.zeros(
        rows, like.shape[1], length + SCRATCH_COLUMNS, like.shape[3], dtype=like.dtype, device=like.device
    )


def _resize_tensor(old: Tensor, rows: int, length: int, columns_to_copy: Callable[[int], int]) -> Tensor:
    new = _zeros(old, rows, length)
    for row in range(min(rows, old.shape[0])):
        columns = columns_to_copy(row)
        new[row, :, :columns] = old[row, :, :columns]
    return new


@dataclass(frozen=True)
class LongRopeBoundary:
    """Length from which a `longrope` model uses its long rotary factors for every token of a pass.

    All keys of a sequence need the same factors. So a longer sequence never shares a pass with shorter ones, its
    prompt is one chunk, and one that crosses the boundary restarts (as in `generate`: Phi3's
    `prepare_inputs_for_generation`).
    """

    tokens: int | None

    @classmethod
    def from_config(cls, config: Any) -> "LongRopeBoundary":
        rope = getattr(config, "rope_parameters", None) or {}
        if rope.get("rope_type") != "longrope":
            return cls(None)
        return cls(int(rope.get("original_max_position_embeddings") or config.original_max_position_embeddings))

    def is_exceeded(self, length: int) -> bool:
        return self.tokens is not None and length > self.tokens

    def is_crossed(self, length: int) -> bool:
        """True if the last sampled token crossed it."""
        return self.tokens is not None and length == self.tokens + 1


@dataclass(frozen=True)
class AttentionMaskKinds:
    """Attention windows by kind of layer; None: full causal attention."""

    windows: dict[str, int | None]

    def additive_masks(self, positions: Tensor, columns: int, dtype: torch.dtype) -> Tensor | dict[str, Tensor]:
        """`positions [B, T]` of the new tokens → `[B, 1, T, columns]`: 0 for visible keys, else the smallest number.

        A dict by kind if the model has several kinds, as transformers expects.
        """
        masks = {kind: _mask(positions, columns, window, dtype) for kind, window in self.windows.items()}
        return masks if len(masks) > 1 else next(iter(masks.values()))


def attention_mask_kinds(config: Any) -> AttentionMaskKinds:
    """Raises InvalidModel if a layer has an unsupported kind of attention."""
    window = getattr(config, "sliding_window", None)
    layer_types = set(getattr(config, "layer_types", None) or ())
    if unsupported := layer_types - SUPPORTED_LAYER_TYPES:
        raise InvalidModel(f"its layers include {', '.join(sorted(unsupported))}")
    if not layer_types:
        layer_types = {"sliding_attention" if window else "full_attention"}
    return AttentionMaskKinds({kind: window if kind == "sliding_attention" else None for kind in sorted(layer_types)})


def _mask(positions: Tensor, columns: int, window: int | None, dtype: torch.dtype) -> Tensor:
    key = torch.arange(columns, device=positions.device)
    query = positions[:, None, :, None]  # [B, 1, T, 1]
    hidden = key > query
    if window is not None:
        hidden |= key <= query - window
    return torch.zeros(hidden.shape, dtype=dtype, device=positions.device).masked_fill_(hidden, torch.finfo(dtype).min)


@dataclass(eq=False)
class Slot:
    """One row of the cache, and the tokens that its keys and values were computed from."""

    row: int
    steering: Hashable = None
    token_keys: list[int] = field(default_factory=list)
    finite_count: int = 0
    """Number of leading tokens whose keys and values are known to be finite; only these are reused."""
    written_count: int = 0  # Number of columns written, finite or not
    prefix_state: object = None  # Returned to the sequence that reuses the prefix
    is_busy: bool = False
    last_used: int = 0  # Time of the last allocation or release, on the allocator's clock


@dataclass(frozen=True)
class SlotAllocation:
    """A slot whose first `cached_count` columns are valid, once copied from `source` if that is set."""

    slot: Slot
    cached_count: int = 0
    source: Slot | None = None
    prefix_state: object = None


def token_key(token: int, is_steered: bool) -> int:
    """Token id and steering in one number: steered tokens have other keys and values."""
    return 2 * token + is_steered


class SlotAllocator:
    """Rows 0..decoding−1 belong to decoding sequences, so that one pass reads adjacent rows.

    Released rows stay warm: a prompt with the same prefix and steering reuses their keys and values. Holds no tensors.
    """

    def __init__(self, rows: int, swap: Callable[[Slot, Slot], None]) -> None:
        """`swap` exchanges the contents of two rows; it is called before their row numbers change."""
        self._slots = [Slot(row) for row in range(rows)]
        self._swap = swap
        self._clock = itertools.count(1)
        self._decoding_count = 0

    def __len__(self) -> int:
        return len(self._slots)

    def __getitem__(self, row: int) -> Slot:
        return self._slots[row]

    @property
    def busy_slots(self) -> list[Slot]:
        return [slot for slot in self._slots if slot.is_busy]

    def allocate(self, steering: Hashable, token_keys: Sequence[int]) -> SlotAllocation:
        """A row for a prompt; `token_keys` of the tokens that may be reused (at most all but the last)."""
        donor, cached = self._longest_prefix(steering, token_keys)
        spare = self._oldest_idle(exclude=donor)
        if donor and not donor.is_busy and _should_reuse_in_place(donor, cached, spare):
            prefix_state = donor.prefix_state
            self._occupy(donor, steering, token_keys[:cached])
            return SlotAllocation(donor, cached, None, prefix_state)
        assert spare is not None, "more sequences than rows"
        self._occupy(spare, steering, token_keys[:cached])
        return SlotAllocation(spare, cached, donor, donor.prefix_state if donor else None)

    def move_to_decoding(self, slot: Slot) -> None:
        """Called after the slot's prefill."""
        self._exchange(slot, self._slots[self._decoding_count])
        self._decoding_count += 1

    def release(self, slot: Slot) -> None:
        """The row becomes warm; the last decoding row fills its place."""
        slot.is_busy = False
        slot.last_used = next(self._clock)
        del slot.token_keys[slot.finite_count :]
        slot.written_count = slot.finite_count
        if slot.row < self._decoding_count:
            self._decoding_count -= 1
            self._exchange(slot, self._slots[self._decoding_count])

    def resize(self, rows: int, length: int) -> None:
        """Busy rows move to the front; warm rows and columns beyond the new size are dropped."""
        front = self._decoding_count
        for slot in self.busy_slots:
            if slot.row >= self._decoding_count:
                self._exchange(slot, self._slots[front])
                front += 1
        del self._slots[rows:]
        for slot in self._slots:
            del slot.token_keys[length:]
            slot.finite_count, slot.written_count = min(slot.finite_count, length), min(slot.written_count, length)
        self._slots += [Slot(row) for row in range(len(self._slots), rows)]

    def invalidate(self) -> None:
        """Let no prefix computed so far be reused."""
        for slot in self._slots:
            slot.steering = object()

    def _occupy(self, slot: Slot, steering: Hashable, token_keys: Sequence[int]) -> None:
        slot.steering, slot.token_keys, slot.prefix_state = steering, list(token_keys), None
        slot.finite_count = slot.written_count = len(token_keys)
        slot.is_busy, slot.last_used = True, next(self._clock)

    def _longest_prefix(self, steering: Hashable, token_keys: Sequence[int]) -> tuple[Slot | None, int]:
        best, longest = None, MIN_REUSED_PREFIX - 1
        for slot in self._slots:
            if slot.finite_count > longest and slot.steering == steering:
                common = _common_prefix_length(slot.token_keys[: slot.finite_count], list(token_keys))
                if common > longest:
                    best, longest = slot, common
        return best, longest if best else 0

    def _oldest_idle(self, *, exclude: Slot | None) -> Slot | None:
        """Prefers empty rows to warm ones."""
        idle = [slot for slot in self._slots if not slot.is_busy and slot is not exclude]
        return min(idle, key=lambda slot: (slot.finite_count > 0, slot.last_used), default=None)

    def _exchange(self, one: Slot, other: Slot) -> None:
        if one is not other:
            self._swap(one, other)
            one.row, other.row = other.row, one.row
            self._slots[one.row], self._slots[other.row] = one, other


def _should_reuse_in_place(donor: Slot, cached_count: int, spare: Slot | None) -> bool:
    """A copy preserves the donor's tokens beyond the prefix, but overwrites the spare row's."""
    if spare is None or cached_count == donor.finite_count:
        return True
    return spare.finite_count > 0 and 2 * cached_count >= donor.finite_count


def _common_prefix_length(one: list[int], other: list[int]) -> int:
    """Bisects: comparing slices is much faster than a loop over tokens."""
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        if one[low:middle] == other[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low
