"""The slot cache matches a naive implementation."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from millm.engine import kv_cache as caching
from millm.engine.kv_cache import CacheWindow, SlotCache

LAYERS = 2


class Naive:
    """Keys and values by `[layer][row][column]` → `[2, H, D]`, absent if never written."""

    def __init__(self, rows: int, length: int) -> None:
        self.rows, self.length = rows, length
        self.cells: dict[tuple[int, int, int], Tensor] = {}

    def write(self, layer: int, window: CacheWindow, keys: Tensor, values: Tensor) -> None:
        for row in range(window.rows):
            for token in range(keys.shape[2]):
                column = int(window.positions[row, token])
                self.cells[layer, window.first_row + row, column] = torch.stack(
                    [keys[row, :, token], values[row, :, token]]
                )

    def move(self, rows: dict[int, int], columns: int) -> None:
        """Copies the first `columns` of other rows; the rest is unchanged."""
        before = dict(self.cells)
        for target, source in rows.items():
            for layer, column in self._places(columns):
                self._set((layer, target, column), before.get((layer, source, column)))

    def resize(self, rows: int, length: int, columns_to_copy: list[int]) -> None:
        self.cells = {
            (layer, row, column): cell
            for (layer, row, column), cell in self.cells.items()
            if row < rows and column < min(columns_to_copy[row], length)
        }
        self.rows, self.length = rows, length

    def scrub(self, row: int, start: int, stop: int) -> None:
        for layer, column in self._places(stop):
            if column >= start:
                self._set((layer, row, column), None)

    def _places(self, columns: int) -> list[tuple[int, int]]:
        return [(layer, column) for layer in range(LAYERS) for column in range(columns)]

    def _set(self, place: tuple[int, int, int], cell: Tensor | None) -> None:
        self.cells.pop(place, None)
        if cell is not None:
            self.cells[place] = cell


def assert_same(cache: SlotCache, naive: Naive) -> None:
    assert (cache.rows, cache.length) == (naive.rows, naive.length)
    for index, layer in enumerate(cache._layers):
        assert layer.keys.shape[0] == layer.values.shape[0] == naive.rows
        assert layer.keys.shape[2] == layer.values.shape[2] == naive.length + caching.SCRATCH_COLUMNS
        expected = torch.zeros(2, *layer.keys.shape)
        for (place, row, column), cell in naive.cells.items():
            if place == index:
                expected[:, row, :, column] = cell
        assert torch.equal(torch.stack([layer.keys, layer.values]), expected)


def window_of(draw: st.DrawFn, rows: int, length: int) -> CacheWindow:
    """A chunk of one row, or one token each of adjacent rows at their own positions."""
    first = draw(st.integers(0, rows - 1))
    if draw(st.booleans()):
        start = draw(st.integers(0, length - 1))
        end = draw(st.integers(start + 1, length))
        return CacheWindow(first, 1, end, torch.arange(start, end)[None], start)
    count = draw(st.integers(1, rows - first))
    positions = draw(st.lists(st.integers(0, length - 1), min_size=count, max_size=count))
    return CacheWindow(first, count, max(positions) + 1, torch.tensor(positions)[:, None], None)


@given(data=st.data(), rows=st.integers(1, 4), length=st.integers(1, 6), heads=st.integers(1, 3))
@settings(max_examples=200, deadline=None)
def test_cache_matches_a_naive_implementation(data: st.DataObject, rows: int, length: int, heads: int) -> None:
    cache, naive = SlotCache(LAYERS, rows, length), Naive(rows, length)
    count = 0
    for step in range(8):
        kind = data.draw(st.sampled_from(("update", "copy", "swap", "scrub", "resize"))) if step else "update"
        some, other = (data.draw(st.integers(0, cache.rows - 1)) for _ in range(2))
        columns = data.draw(st.integers(0, cache.length))
        match kind:
            case "update":
                cache.window = window = window_of(data.draw, cache.rows, cache.length)
                count = update(cache, naive, window, heads, count)
            case "copy":
                cache.copy(some, other, columns)
                naive.move({other: some}, columns)
            case "swap":
                cache.swap(some, other, columns)
                naive.move({other: some, some: other}, columns)
            case "scrub":
                start = data.draw(st.integers(0, columns))
                cache.scrub(some, slice(start, columns))
                naive.scrub(some, start, columns)
            case "resize":
                new_rows, new_length = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 6))
                columns_to_copy = [data.draw(st.integers(0, min(cache.length, new_length))) for _ in range(4)]
                cache.resize(new_rows, new_length, columns_to_copy.__getitem__)
                naive.resize(new_rows, new_length, columns_to_copy)
        assert_same(cache, naive)


@torch.inference_mode()
def update(cache: SlotCache, naive: Naive, window: CacheWindow, heads: int, count: int) -> int:
    """Write unique numbers in every layer; → their count so far."""
    tokens = window.positions.shape[1]
    shape = (2, window.rows, heads, tokens, 3)
    for layer in range(LAYERS):
        both = torch.arange(count + 1, count + 1 + math.prod(shape), dtype=torch.float32).view(shape)
        count += math.prod(shape)
        keys, values = cache.past_key_values.update(*both, layer)
        naive.write(layer, window, *both)
        mine = slice(window.first_row, window.first_row + window.rows)
        assert torch.equal(keys, cache._layers[layer].keys[mine, :, : window.columns])
        assert torch.equal(values, cache._layers[layer].values[mine, :, : window.columns])
    assert cache.past_key_values.get_seq_length() == window.columns - tokens
    return count


@given(positions=st.lists(st.integers(0, 8), min_size=1, max_size=5), first=st.integers(0, 2))
@settings(max_examples=100, deadline=None)
def test_batched_writes_match_single_writes(positions: list[int], first: int) -> None:
    """One token per row compared with a slice per row, for keys and values of different depths."""
    count = len(positions)
    cache, one_by_one = SlotCache(1, 8, 9), SlotCache(1, 8, 9)
    keys, values = torch.randn(count, 2, 1, 4), torch.randn(count, 2, 1, 1)
    cache.window = CacheWindow(first, count, 9, torch.tensor(positions)[:, None], None)
    cache.past_key_values.update(keys, values, 0)
    for row, position in enumerate(positions):
        one_by_one.window = CacheWindow(first + row, 1, position + 1, torch.tensor([[position]]), position)
        one_by_one.past_key_values.update(keys[row : row + 1], values[row : row + 1], 0)
    for found, expected in zip(cache._tensors(), one_by_one._tensors(), strict=True):
        assert torch.equal(found, expected)


def test_resize_out_of_memory_leaves_consistent_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Some layers are resized and some are not: the bounds are what all layers have."""
    cache = SlotCache(LAYERS, 3, 4)
    cache.window = CacheWindow(0, 3, 2, torch.tensor([[1], [0], [1]]), None)
    written = torch.randn(3, 2, 1, 3)
    for layer in range(LAYERS):
        cache.past_key_values.update(written, written, layer)
    before = [layer.keys.clone() for layer in cache._layers]
    zeros, left = caching._zeros, [3]  # keys and values of one layer, keys of the next

    def short(like: Tensor, rows: int, length: int) -> Tensor:
        left[0] -= 1
        if left[0] < 0:
            raise torch.OutOfMemoryError("injected")
        return zeros(like, rows, length)

    monkeypatch.setattr(caching, "_zeros", short)
    for rows, length, bounds in ((5, 2, (3, 2)), (2, 8, (2, 4))):
        left[0] = 3
        with pytest.raises(torch.OutOfMemoryError):
            cache.resize(rows, length, lambda _row: 2)
        assert (cache.rows, cache.length) == bounds
    for layer, keys in zip(cache._layers, before, strict=True):
        assert torch.equal(layer.keys[:2, :, :2], keys[:2, :, :2])
