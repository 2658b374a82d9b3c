"""Keys and values of many sequences side by side, behind transformers' public `Cache`: one row per sequence.

A pass reads and writes the rows its `Window` names. Knows nothing about requests: who has which row is in `slots.py`.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers.cache_utils import Cache, CacheLayerMixin

from millm.engine.sizes import SCRATCH_COLUMNS


@dataclass(frozen=True)
class CacheWindow:
    """The rows and columns of one forward pass."""

    first_row: int
    """First row; the others are its neighbours."""
    rows: int
    columns: int
    """Keys that are looked at: up to the longest row's last."""
    positions: Tensor  # [rows, T] int64
    start_column: int | None
    """Column of the first new key, the same for every row; None: each row at its own."""
    write_columns: Tensor | None = None  # [rows, 1] int64: those columns, where they are not the positions


class SlotCache:
    """`rows × length` keys and values per layer, allocated when the first pass shows their shape."""

    def __init__(self, layers: int, rows: int, length: int) -> None:
        self.rows = rows
        self.length = length
        self._window: CacheWindow | None = None
        self._write_indices_by_shape: dict[tuple[int, ...], Tensor] = {}
        self.allocation_version = 0
        """Goes up when keys and values move to other tensors."""
        self._layers = [_SlotLayer(self) for _ in range(layers)]
        self.past_key_values = Cache(layers=list(self._layers))
        """What the model is handed as `past_key_values`."""

    @property
    def window(self) -> CacheWindow | None:
        """What the pass that runs now reads and writes; set before each."""
        return self._window

    @window.setter
    def window(self, window: CacheWindow) -> None:
        self._window = window
        self._write_indices_by_shape.clear()

    def write_indices(self, heads: int, length: int) -> Tensor:
        """Where the pass writes one key per row, each at its own column, in `[N·H·S, D]`: `[rows·H]`."""
        found = self._write_indices_by_shape.get((heads, length))
        if found is None:
            found = self._write_indices_by_shape[heads, length] = _compute_write_indices(self._window, heads, length)
        return found

    @property
    def bytes_per_token(self) -> int:
        """Of one row, over all layers; known once a pass went through."""
        return sum(tensor.element_size() * tensor.shape[1] * tensor.shape[3] for tensor in self._tensors())

    @torch.inference_mode()
    def resize(self, rows: int, length: int, columns_to_copy: Callable[[int], int]) -> None:
        """Other bounds; the first `kept(row)` columns stay. One layer at a time, so that little is held twice.

        Raises torch.OutOfMemoryError; the bounds are then what every layer has.
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
        """The first `columns` of one row into another."""
        for tensor in self._tensors():
            tensor[target, :, :columns] = tensor[source, :, :columns]

    @torch.inference_mode()
    def swap(self, one: int, other: int, columns: int) -> None:
        for tensor in self._tensors():
            spare = tensor[one, :, :columns].clone()
            tensor[one, :, :columns] = tensor[other, :, :columns]
            tensor[other, :, :columns] = spare

    @torch.inference_mode()
    def scrub(self, row: int, columns: slice) -> None:
        """Zero what may not be finite: even a masked-out NaN value spoils every sum it is in."""
        for tensor in self._tensors():
            tensor[row, :, columns] = 0

    def _tensors(self) -> list[Tensor]:
        return [tensor for layer in self._layers if layer.is_initialized for tensor in (layer.keys, layer.values)]


class _SlotLayer(CacheLayerMixin):  # type: ignore[no-untyped-call]
    is_sliding = False  # a sliding window is the mask's business: every row keeps all of its keys
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
        """`[rows, H, T, D]` new keys and values in; `[rows, H, columns, D]` of the window out, as views."""
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
        """Keys there were before this pass, in its longest row."""
        window = self._cache.window
        return window.columns - window.positions.shape[1] if window else 0

    def get_max_length(self) -> int:
        return self._cache.length


def _zeros(like: Tensor, rows: int, length: int) -> Tensor:
    """Zeros, so that a column nobody wrote is a number; on a CPU the pages come as they are written."""
    return torch.zeros(
        rows, like.shape[1], length + SCRATCH_COLUMNS, like.shape[3], dtype=like.dtype, device=like.device
    )


def _resize_tensor(old: Tensor, rows: int, length: int, columns_to_copy: Callable[[int], int]) -> Tensor:
    new = _zeros(old, rows, length)
    for row in range(min(rows, old.shape[0])):
        columns = columns_to_copy(row)
        new[row, :, :columns] = old[row, :, :columns]
    return new


def _compute_write_indices(window: CacheWindow | None, heads: int, length: int) -> Tensor:
    assert window is not None
    device = window.positions.device
    row = torch.arange(window.first_row, window.first_row + window.rows, device=device)
    head = torch.arange(heads, device=device)
    column = window.positions if window.write_columns is None else window.write_columns  # [rows, 1]
    return ((row[:, None] * heads + head) * length + column).view(-1)
